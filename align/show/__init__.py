"""A look into any file of rows: in the terminal, as a page with thumbnails, and as coloured tokens.

command.py   `align show`

Inside:

views.py     what is shown of each kind of row
terminal.py  as text
page.py      as a page
tokens.py    with the loss mask
"""
