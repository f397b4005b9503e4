"""From rows to what a model reads: pictures, chat text, tokens, and how many of them.

images.py         a file or bytes -> exactly the pixels that the server sees
chat.py           messages and images -> model inputs; the only place
trained_text.py   an answer as it is trained on, where the template knows thoughts
text_rows.py      rows of a text-only model as token ids
image_tokens.py   what an image becomes in the text, told from its size alone
budget.py         what a row costs in tokens, from headers
data_sets.py      several files as the data of one run: how much of each
training_data.py  rows for training, checked at the border and decoded when needed
checked_rows.py   rows that have passed their checks, on disk: found once, read by all
row_checks.py     what can be wrong with a training row

Inside:

checking.py        the checks of a whole file, on all cores
known_pictures.py  which pictures have been decoded before
"""
