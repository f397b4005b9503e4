"""Best of n at inference: several answers a question, ranked, and what the best of them is worth.

Inside:

stage.py    `align best`
ranking.py  answers of one prompt -> scores: a DPO policy against its reference, or a judge's verdicts
curve.py    the best of 1, 2, 4, ... answers against the first, with intervals and cost
plot.py     the curve
"""
