"""What SFT and DPO share around TRL's trainers.

stage.py          the story of both: rows, model, trainer, dev check, training, what is left
foreign_rows.py   files of other tools, made rows of ours before anything reads them
mixing.py         several sets as one file of rows, drawn by a seed
loop.py           arguments, progress, checkpoints, resume, results
stores.py         where a run's reference and feature stores are
efficiency.py     what a run cost: memory by part, time a step, sizes
tensor_shards.py  tensors on disk under content keys: append-only, crash-safe
"""
