"""Published datasets as the project's rows, every row kept or quarantined with its reason.

Inside:

command.py      `align import`
direct.py       a file of any known format, read by a stage itself
recognise.py    what format a source is in, told from its first rows
meaning.py      what keys and markers mean: read, or their row refused
dialogue.py     rows that hold a conversation, by whichever tool
flat_rows.py    a question and its answers as plain texts
json_stream.py  JSON of any size, value by value
tables.py       CSV files and WebDataset tars
items.py        one published row before it is understood
pieces.py       what a turn is made of: texts and places of pictures
formats/        one file a format or close group of formats
published.py    one row as somebody published it, and the ways to make rows of ours from it
convert.py      all rows of a source
sources.py      JSON, JSON lines, Parquet, a folder of them, or a hub id
pictures.py     a row's pictures, found under one root or brought there
turns.py        conversations as our messages
unusable.py     why a row cannot become one of ours
"""
