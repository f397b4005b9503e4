"""What is wrong with preference pairs before anyone trains on them.

Inside:

stage.py            `align audit`
findings.py         a finding, and how grave it is
reading.py          pairs one by one, with a bar, and those to look at again
length_check.py     length, and how much both answers share at their beginning
style_check.py      the words alone, and layout and punctuation
count_checks.py     mentions, numbers, repetition
duplicates.py       pairs that occur again, nearly again, or the other way round
label_noise.py      pairs that are probably the wrong way round
judge_check.py      what the judge's verdicts say of pairs
reference_check.py  what the reference model makes of them
histogram.py        lengths as bars
page.py             the page
"""
