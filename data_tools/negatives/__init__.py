"""Texts and pictures made worse, for preference pairs.

Inside:

stage.py    `align negatives`
recipe.py   its kinds, with the keys of each
swaps.py    a true text with absent objects in it (POVID)
images.py   pictures that make an answer unfounded
similar.py  the picture that looks most alike (Re-Align)
"""
