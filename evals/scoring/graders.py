"""An answer against the right answers, in both modes, by the name of the metric.

Each grader takes the right answers and the answer, and says what it is worth from 0 to 1. The scoring rules
stand in `align.scoring.vqa_accuracy`, `align.scoring.normalise`, `evals.scoring.anls` and
`evals.scoring.relaxed`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from align.scoring.normalise import clean, normalise, normalise_evalai
from align.scoring.vqa_accuracy import evalai_accuracy, vqa_accuracy
from evals.protocol import Grade
from evals.scoring.anls import anls
from evals.scoring.choices import parse_strict
from evals.scoring.relaxed import relaxed_match

Grader = Callable[[Sequence[str], str], Grade]


def grade_exact(truths: Sequence[str], text: str) -> Grade:
    """`official`: the very text of one of the right answers, without blanks around it; `strict`: the same
    words, without regard to case, articles, punctuation and number words.

    >>> grade_exact(["red"], "The red.").official, grade_exact(["red"], "The red.").strict
    (0.0, 1.0)
    """
    plain, normal = text.strip(), normalise(clean(text))
    exact = any(plain == truth.strip() for truth in truths)
    same = bool(plain) and any(normal == normalise(clean(truth)) for truth in truths)
    return Grade(float(exact), float(same), plain, normal, unparsed=not plain)


def grade_gqa(truths: Sequence[str], text: str) -> Grade:
    """`official`: GQA's exact match after LLaVA's conversion (scripts/convert_gqa_for_eval.py at c121f043),
    which takes full stops off the end and lower-cases the answer, not the truth; blanks count. `strict`: as
    `grade_exact`.

    >>> [grade_gqa(["yes"], text).official for text in ("Yes.", "yes", "Yes. ", "yes, it is", "")]
    [1.0, 1.0, 0.0, 0.0, 0.0]
    """
    parsed = text.rstrip(".").lower()
    strict = grade_exact(truths, text)
    return Grade(float(parsed in truths), strict.strict, parsed, strict.parsed_strict, strict.unparsed)


def grade_vqa(truths: Sequence[str], text: str) -> Grade:
    """VQAv2's accuracy against all annotators, see `align.scoring.vqa_accuracy.vqa_accuracy`."""
    plain = clean(text)
    official, strict = (vqa_accuracy(text, truths, mode) for mode in ("official", "strict"))
    return Grade(official, strict, plain, normalise(plain), unparsed=not plain)


def grade_evalai(truths: Sequence[str], text: str) -> Grade:
    """TextVQA's and VizWiz's accuracy against all annotators. Both modes normalise always; `strict` differs
    only in that an empty answer is worth nothing, where an annotator's `a` or `the` normalises to nothing."""
    parsed = normalise_evalai(text)
    worth = evalai_accuracy(text, truths)
    return Grade(worth, worth if parsed else 0.0, parsed, parsed or None, unparsed=not parsed)


def grade_anls(truths: Sequence[str], text: str) -> Grade:
    """DocVQA's ANLS, see `evals.scoring.anls`."""
    plain = " ".join(text.split())
    strict = anls(text, truths, "strict") if plain else 0.0
    return Grade(anls(text, truths), strict, plain, plain.lower(), unparsed=not plain)


def grade_relaxed(truths: Sequence[str], text: str) -> Grade:
    """ChartQA's relaxed accuracy, see `evals.scoring.relaxed`; blanks around the answer are dropped first."""
    plain = text.strip()
    official, strict = (
        float(any(relaxed_match(truth, plain, mode) for truth in truths)) for mode in ("official", "strict")
    )
    return Grade(official, strict if plain else 0.0, plain, plain, unparsed=not plain)


def grade_choice(
    official: Callable[[str, Mapping[str, str]], str | None], reference: Mapping[str, Any], text: str
) -> Grade:
    """The option that an answer picks, against `answer` among the lettered `choices` of the reference.

    Args:
        official: a parser of `evals.scoring.choices`; `strict` is that module's `parse_strict`.
    """
    choices, right = reference["choices"], reference["answer"]
    picked, strict = official(text, choices), parse_strict(text, choices)
    return Grade(float(picked == right), float(strict == right), picked, strict, strict is None)


def grade_contains(truths: Sequence[str], text: str) -> Grade:
    """`official`: a right answer stands somewhere in the text, without regard to case; `strict`: as words.

    >>> grade_contains(["cat"], "A category").official, grade_contains(["cat"], "A category").strict
    (1.0, 0.0)
    """
    plain, lower = text.strip(), text.casefold()
    found = [truth for truth in truths if truth.casefold() in lower]
    worded = [truth for truth in found if re.search(rf"(?<!\w){re.escape(truth.casefold())}(?!\w)", lower)]
    return Grade(float(bool(found)), float(bool(worded)), plain, worded or None, unparsed=not plain)


GRADERS: Mapping[str, Grader] = {
    "anls": grade_anls,
    "contains": grade_contains,
    "exact_match": grade_exact,
    "relaxed_accuracy": grade_relaxed,
    "textvqa_accuracy": grade_evalai,
    "vqa_accuracy": grade_vqa,
}
"""Metric of a user's own questions -> grader."""
