"""Whether a dataset fits a model, known before training: exact lengths from image headers alone.

Inside:

command.py  `align preflight`
run.py      all rows, in parts
lengths.py  what was found, as a table
decide.py   the fate of each row
memory.py   what the longest needs
engines.py  here, or on a Ray cluster
"""
