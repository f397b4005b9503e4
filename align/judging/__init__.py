"""Whoever says how good an answer is, for data and for benchmarks alike.

endpoint.py      somebody else's OpenAI-compatible server
ask.py           a language model asked k times for one of a closed set of verdicts
replies.py       what stands behind a reply's thoughts: yes or no, one of two answers
ratings.py       a number for each of several names
pairwise.py      two answers in both orders: the winner, and the bias of order
unread.py        too many replies that say no verdict
wording.py       prompts with places to fill, filled in one pass
kappa.py         how often two raters agree, beyond chance
answer_logps.py  log-probs of whole answers under a checkpoint: the DPO reward as a judge
"""
