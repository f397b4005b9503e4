"""A look into any file of rows: in the terminal, as a page, as coloured tokens, or served page by page.

command.py      `align show`
differences.py  what differs between two answers

Inside:

views.py        what is shown of each kind of row
answers.py      the answers that verdicts are about
terminal.py     as text
page.py         as a page
tokens.py       with the loss mask
catalogue.py    all rows of a file, filtered and sorted
server.py       the catalogue in a browser
"""
