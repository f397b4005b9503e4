"""Judges of answers and rows, and how far each can be believed.

asking.py           what every kind works on, and how its server is asked

Inside:

stage.py            `align judge`
recipe.py           what is judged, by whom, how
claims.py           kind claims (RLAIF-V): everything said of an object becomes a question
claim_questions.py  the question for each kind of claim, and how the reply is read
claim_replies.py    log-probs where the judge tells them, else its words
claim_scores.py     what an answer is worth by its claims
split.py            an answer split by a model: the prompt, and how the reply is read
split_judge.py      kind claims with that splitter
rating.py           kind rating: a rubric
pairwise.py         kind pairwise: both orders
oracle.py           kind oracle: the annotations
ensemble.py         several judges made into one
agreement.py        claims against the truth
calibration.py      a judge against people's labels, and what order does to it
"""
