"""What answers are worth, for evaluation and for the dev check of a training.

stats.py         paired intervals and tests; the image is the cluster
normalise.py     answers as the VQA servers normalise them
vqa_accuracy.py  accuracy against several annotators
"""
