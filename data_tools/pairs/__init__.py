"""Preference pairs from judged answers: the truer is chosen, and alike in all else.

Inside:

stage.py           `align pairs`
recipe.py          its keys
judged_answers.py  candidates with their verdicts, prompt by prompt
selection.py       couples by gap, caps and claims
balance.py         alike in length, mentions, repetition and numbers
style_balance.py   alike in style
minimal_edit.py    the answer without what is denied
sentences.py       pairs of next sentences (SENTINEL)
altered.py         a chosen answer against itself, one phrase altered
earlier.py         a share of earlier rounds' pairs
chosen_rows.py     the chosen answers as instruction rows
"""
