"""A look at dev pictures while a model trains, and what is kept of the training because of it.

`dev:` in a training recipe lets the policy answer dev pictures at step 0, at the end and in between, in the
training's own process; the answers are measured as everywhere (`align.claims`), each change since step 0
with its paired interval. `keep:` says in words what there should be most of and what must not be lost;
the step that the rule keeps becomes the stage's result. Test data takes no part in it.

    dev:
      prompts: ${run_dir}/instructions/prompts.parquet
      instances: ${run_dir}/scenes/annotations/instances_dev.json
    keep: {most: invention_drop, while: {recall: -1.0, instance_precision: 0, repetition: +0}, patience: 3}

Whoever trains calls `open_dev_check`; recipes hold `DevSection` and `KeepSection`.

recipe.py         the sections
check.py          when it asks, what it writes, what is kept

Inside:

open.py           a training recipe -> its dev check, or what is wrong with it
asked.py          what is asked: descriptions, questions, the user's own
answering.py      greedy answers in the middle of a training, which goes on as if nobody had asked
heldout.py        rows that a run does not train on
heldout_loss.py   the loss on them
kept_features.py  vision features of dev pictures, kept between checks
judge.py          a judge at an endpoint
scores.py         answers -> measures, changes since step 0, intervals
words.py          the words of a rule, and the measure that each means
rule.py           which check is kept, and when a run ends early
state.py          log, sample answers, weights that may still win
cost.py           what checks cost, known beforehand
"""

from __future__ import annotations

from align.dev_check.heldout import hold_out
from align.dev_check.open import open_dev_check
from align.dev_check.recipe import DevSection, KeepSection
from align.dev_check.rule import Judged, KeepRule, Kept
from align.dev_check.state import DEV_LOG, DEV_SAMPLES
from align.dev_check.words import DIGITS, GAINS, LIMITS

__all__ = [
    "DEV_LOG",
    "DEV_SAMPLES",
    "DIGITS",
    "GAINS",
    "LIMITS",
    "DevSection",
    "Judged",
    "KeepRule",
    "KeepSection",
    "Kept",
    "hold_out",
    "open_dev_check",
]
