"""Answers of others: files as benchmarks and tools publish them.

rows.py         JSON or JSON lines, one object an answer
spreadsheet.py  .tsv, .csv, the first sheet of an .xlsx
join.py         which question an answer belongs to
folder.py       a benchmark's files where its users keep them
"""
