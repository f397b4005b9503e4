"""Yes or no: what an answer says, and what a set of answers is worth (POPE, RePOPE, POPEv2, DASH-B).

Two readings: POPE's published one, which takes everything that is not a plain no for a yes, and one that
finds the yes or no that a reader would find, or none.
"""

from __future__ import annotations

import re
from typing import Literal

from evals.protocol import Metric, Mode

Answer = Literal["yes", "no"]


def parse_official(text: str) -> Answer:
    """As POPE's evaluate.py at 08d957b9: everything that is not a plain no is yes, the empty text included.

    >>> [parse_official(text) for text in ("No.", "NO", "", "There isn't a dog", "Yes. There is no cat")]
    ['no', 'yes', 'yes', 'yes', 'yes']
    """
    words = text.split(".", 1)[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def parse_containing(text: str) -> Answer | None:
    """As the scripts of RePOPE and DASH-B: yes if `yes` stands anywhere, else no if `no` does, else none.

    >>> [parse_containing(text) for text in ("NO", "Eyes.", "I cannot tell", "None", "")]
    ['no', 'yes', 'no', 'no', None]
    """
    text = text.lower()
    return "yes" if "yes" in text else "no" if "no" in text else None


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


def yes_no_values(
    label: Answer, official: Answer | None, strict: Answer | None, drop_unparsed: bool = False
) -> dict[str, float]:
    """One answer's values for `yes_no_metrics`: tp, fp, tn, fn, n (1) and correct, and `strict_` the same;
    and unparsed (by strict). Yes is positive.

    An answer without a yes or no is wrong: a miss where the label is yes; where it is no, in n alone.

    Args:
        drop_unparsed: the official script leaves out what it cannot read.
    """
    values = {"unparsed": float(strict is None)}
    for prefix, answer in (("", official), ("strict_", strict)):
        counts = float(not (drop_unparsed and not prefix and answer is None))
        values |= {
            f"{prefix}n": counts,
            f"{prefix}tp": float(answer == "yes" and label == "yes"),
            f"{prefix}fp": float(answer == "yes" and label == "no"),
            f"{prefix}tn": float(answer == "no" and label == "no"),
            f"{prefix}fn": counts * (answer != "yes" and label == "yes"),
            f"{prefix}correct": float(answer == label),
        }
    return values


def yes_no_metrics(
    mode: Mode, split: str, subsets: tuple[str, ...], primary_mode: Mode | None
) -> list[Metric]:
    """F1 (primary), accuracy, precision, recall and the share of yes among the *predictions*, from the
    values of `confusion` and n (strict ones have the prefix `strict_`)."""
    mark, suffix = ("", "") if mode == "official" else ("strict_", "_strict")
    tp, fp, tn, fn, n = (f"{mark}{name}" for name in ("tp", "fp", "tn", "fn", "n"))
    table: list[tuple[str, dict[str, float], dict[str, float], bool | None]] = [
        ("f1", {tp: 2}, {tp: 2, fp: 1, fn: 1}, True),
        ("accuracy", {tp: 1, tn: 1}, {n: 1}, True),
        ("precision", {tp: 1}, {tp: 1, fp: 1}, True),
        ("recall", {tp: 1}, {tp: 1, fn: 1}, True),
        ("yes_ratio", {tp: 1, fp: 1}, {n: 1}, None),
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
