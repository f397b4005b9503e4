"""Published datasets as the project's rows, every row kept or quarantined with its reason.

Inside:

command.py    `align import`
formats/      one file a format or close group of formats
published.py  one row as somebody published it, and the ways to make rows of ours from it
convert.py    all rows of a source
sources.py    JSON, JSON lines, Parquet, a folder of them, or a hub id
pictures.py   a row's pictures, found under one root or brought there
turns.py      conversations as our messages
unusable.py   why a row cannot become one of ours
"""
