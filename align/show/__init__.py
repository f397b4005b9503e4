"""A look into any file of rows: in the terminal, as a page, as coloured tokens, or served page by page.

command.py      `align show`
differences.py  what differs between two answers
tokens.py       a row as its trainer makes tokens of it, with the loss mask

Inside:

views.py        what is shown of each kind of row
answers.py      the answers that verdicts are about
terminal.py     as text
page.py         as a page
catalogue.py    all rows of a file, filtered and sorted
server.py       the catalogue in a browser
"""
