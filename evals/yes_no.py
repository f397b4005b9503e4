"""Yes or no: what an answer says, and what a set of answers is worth (POPE, RePOPE, POPEv2, DASH-B).

Two readings: POPE's published one, which takes everything that is not a plain no for a yes, and one that
finds the yes or no that a reader would find, or none.
"""

from __future__ import annotations

import re
from typing import Literal

from evals.task import Metric, Mode

Answer = Literal["yes", "no"]


def parse_official(text: str) -> Answer:
    """As POPE's evaluate.py at 08d957b9: everything that is not a plain no is yes, the empty text included.

    >>> [parse_official(text) for text in ("No.", "NO", "", "There isn't a dog", "Yes. There is no cat")]
    ['no', 'yes', 'yes', 'yes', 'yes']
    """
    words = text.split(".", 1)[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


_WORD = re.compile(r"[a-z]+(?:['’]t)?")
_YES, _NO = {"yes", "yeah", "yep", "yup"}, {"no", "nope", "nah"}
_NEGATION = {"no", "not", "none", "cannot", "without"}


def parse_strict(text: str) -> Answer | None:
    """The answer that a reader would take from the text, None when there is none.

    A leading yes or no decides; else a first sentence such as `there is (no) dog` does.

    >>> [parse_strict(text) for text in ("NO", "", "There isn't a dog", "There is one", "Yes. No.", "dog")]
    ['no', None, 'no', 'yes', 'yes', None]
    """
    words = _WORD.findall(text.strip().lower().partition(".")[0])
    if not words:
        return None
    if words[0] in _YES | _NO:
        return "yes" if words[0] in _YES else "no"
    if any(word in _NEGATION or word.endswith(("n't", "n’t")) for word in words):
        return "no"
    stated = words[:2] in (["there", "is"], ["there", "are"], ["it", "is"], ["i", "see"])
    return "yes" if stated or set(words) & _YES else None


def confusion(prefix: str, answer: Answer | None, label: Answer) -> dict[str, float]:
    """Values tp, fp, tn, fn under `prefix`; yes is positive. An answer without a yes or no is a miss where
    the label is yes; where it is no, it counts in n alone."""
    return {
        f"{prefix}tp": float(answer == "yes" and label == "yes"),
        f"{prefix}fp": float(answer == "yes" and label == "no"),
        f"{prefix}tn": float(answer == "no" and label == "no"),
        f"{prefix}fn": float(answer != "yes" and label == "yes"),
    }


def yes_no_metrics(
    mode: Mode, split: str, subsets: tuple[str, ...], primary_mode: Mode | None
) -> list[Metric]:
    """F1 (primary), accuracy, precision, recall and the share of yes among the *predictions*, from the
    values of `confusion` (strict ones have the prefix `strict_`) and n (1)."""
    mark, suffix = ("", "") if mode == "official" else ("strict_", "_strict")
    tp, fp, tn, fn = (f"{mark}{name}" for name in ("tp", "fp", "tn", "fn"))
    table: list[tuple[str, dict[str, float], dict[str, float], bool | None]] = [
        ("f1", {tp: 2}, {tp: 2, fp: 1, fn: 1}, True),
        ("accuracy", {tp: 1, tn: 1}, {"n": 1}, True),
        ("precision", {tp: 1}, {tp: 1, fp: 1}, True),
        ("recall", {tp: 1}, {tp: 1, fn: 1}, True),
        ("yes_ratio", {tp: 1, fp: 1}, {"n": 1}, None),
    ]
    return [
        Metric(
            name=name + suffix,
            split=split,
            numerator=numerator,
            denominator=denominator,
            higher_is_better=better,
            primary=name == "f1" and mode == primary_mode,
            mode=mode,
            subsets=subsets,
        )
        for name, numerator, denominator, better in table
    ]
