"""Accuracy against several annotators (Goyal et al. 2017, arXiv:1612.00837; Singh et al. 2019,
arXiv:1904.08920).

An answer is worth min(1, matches among the other annotators / 3), averaged over leaving each annotator out:
with ten annotators 0, 30, 60, 90, 100 % for 0, 1, 2, 3 and more matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from align.scoring.normalise import clean, normalise, normalise_evalai

Mode = Literal["official", "strict"]
SHORT_ANSWER = "{question}\nAnswer the question using a single word or phrase."
"""LLaVA-1.5's prompt for short answers (Liu et al. 2023, arXiv:2310.03744, table 1)."""


def vqa_accuracy(answer: str, annotators: Sequence[str], mode: Mode = "official") -> float:
    """VQAEval's accuracy of one answer, 0 to 1.

    Edge cases: `official` normalises only where the annotators are not all the same, so `Yes` scores 0
    against ten times `yes`; `strict` always does. An annotator's empty answer (`the` normalised) matches an
    empty one.

    >>> [round(vqa_accuracy("yes", ["yes"] * k + ["no"] * (10 - k)), 2) for k in (0, 1, 2, 3, 4)]
    [0.0, 0.3, 0.6, 0.9, 1.0]
    >>> vqa_accuracy("Yes", ["yes"] * 10), vqa_accuracy("Yes", ["yes"] * 10, "strict")
    (0.0, 1.0)
    """
    answer, truth = clean(answer), [clean(item) for item in annotators]
    if mode == "strict" or len(set(truth)) > 1:
        answer, truth = normalise(answer), [normalise(item) for item in truth]
    return _leave_one_out(answer, truth)


def evalai_accuracy(answer: str, annotators: Sequence[str]) -> float:
    """TextVQA's and VizWiz's accuracy of one answer, 0 to 1: EvalAI's normaliser, always.

    >>> evalai_accuracy("Yes.", ["yes"] * 10), round(evalai_accuracy("Dell", ["dell"] + ["hp"] * 9), 2)
    (1.0, 0.3)
    """
    return _leave_one_out(normalise_evalai(answer), [normalise_evalai(item) for item in annotators])


def _leave_one_out(answer: str, truth: Sequence[str]) -> float:
    matches = sum(item == answer for item in truth)
    return sum(min(1.0, (matches - (item == answer)) / 3) for item in truth) / len(truth)
