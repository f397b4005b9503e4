"""What is wrong with preference pairs before anyone trains on them.

Inside:

stage.py            `align audit`
findings.py         a finding, and how grave it is
style_check.py      length and style
count_checks.py     mentions, numbers, repetition
text_checks.py      duplicates, templates, leaks
label_noise.py      pairs that are probably the wrong way round
judge_check.py      what the judge's verdicts say of pairs
reference_check.py  what the reference model makes of them
histogram.py        lengths as bars
page.py             the page
"""
