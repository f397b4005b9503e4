"""LoRA for image classification: a vision transformer alone.

Inside:

stage.py   `align classify`
images.py  a folder a class, or lines of `{image, label}`; checked, and split
"""
