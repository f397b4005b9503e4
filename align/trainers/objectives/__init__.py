"""What a preference trainer minimises: the recipe section, token weights, and the terms themselves.

recipe.py         the `objective` section of a DPO recipe
terms.py          the terms, as functions of per-token log-probs
objective.py      which negatives it needs, and its terms' weighted sum
token_weights.py  weights of tokens, from spans or from the difference of two answers
"""
