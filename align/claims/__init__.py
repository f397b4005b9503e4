"""What an answer claims about a picture, and how much of it is true.

Published scores ask which objects an answer names. This room asks what is said of them: how many, where, in
which colour, beside what; and whether the same object is told twice. `read_text` finds the noun phrases,
`claims_of` the distinct claims that a judge can be asked, `check` compares one with the annotations, and
`measure_answer` counts an answer in additive values, of which `MEASURES` makes ratios: the same for training,
for its choice of a checkpoint, for scores and for the report.

vocabulary.py    the words that are known

Inside:

parsing.py       a text -> its noun phrases
surroundings.py  places and relations around them
claims.py        noun phrases -> instances named, repetitions, claims
truth.py         annotations -> what is in a picture; a claim -> right, wrong or not known
measures.py      an answer and the truth -> values; values -> measures
wording.py       repetition and grammar, without any truth
"""

from align.claims.claims import (
    CLAIM_KINDS,
    Named,
    StatedClaim,
    claims_in,
    claims_of,
    named_instances,
    repeated_categories,
)
from align.claims.measures import MEASURES, Measure, measure_answer, measures_for, worse_tail
from align.claims.parsing import Said, read_text
from align.claims.truth import Box, PictureTruth, check, load_picture_truth
from align.claims.wording import broken_marks

__all__ = [
    "CLAIM_KINDS",
    "MEASURES",
    "Box",
    "Measure",
    "Named",
    "PictureTruth",
    "Said",
    "StatedClaim",
    "broken_marks",
    "check",
    "claims_in",
    "claims_of",
    "load_picture_truth",
    "measure_answer",
    "measures_for",
    "named_instances",
    "read_text",
    "repeated_categories",
    "worse_tail",
]
