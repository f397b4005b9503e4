"""What one answer says, and what it is worth: the readers and formulas of published benchmarks.

yes_no.py            yes or no
choices.py           the option that is picked
graders.py           a grader by its metric's name
nouns.py             AMBER's nouns
similarity.py        AMBER's same words
places.py            where objects stand in an answer
groups.py            values of several answers together
caption_measures.py  what captions are measured by beside published numbers

Inside:

anls.py              ANLS (DocVQA)
relaxed.py           relaxed accuracy (ChartQA)
"""
