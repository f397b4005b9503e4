"""What is known of pictures and answers before any stage decides: all stages of data build on it.

truth.py          what is really in the pictures, by annotations
pictures.py       the usable pictures of an annotation file
claims.py         the objects that an answer claims
co_occurrence.py  which objects are in pictures together
answer_counts.py  length, mentions, repetition, number words of an answer
answer_style.py   sentences, punctuation and layout of an answer
rows_in_order.py  rows by their ids, sought in their file
row_names.py      what a row is called in lists
edit_spans.py     which characters of two answers differ
pair_cap.py       at most so many pairs, by seed
seeded_order.py   an order that looks random and stays
"""
