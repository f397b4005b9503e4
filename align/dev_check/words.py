"""The words of a keep rule, and which measure each of them means.

A recipe says `keep: {most: invention_drop, while: {recall: -1.0, repetition: +0}}`. The words are those
that a person would use; measures are those of `align.claims`, and those that a dev check adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from align.claims import Measure
from align.config.recipe import nearest

LIMITS: Mapping[str, str] = {
    "invention": "distinct_invention",
    "chair": "inventing_captions",
    "recall": "object_recall",
    "f1": "object_f1",
    "instance_precision": "instance_precision",
    "instance_recall": "instance_recall",
    "instance_f1": "instance_f1",
    "overcounted": "overcounted",
    "number": "number_accuracy",
    "place": "place_accuracy",
    "colour": "colour_accuracy",
    "relation": "relation_accuracy",
    "repetition": "repeated_captions",
    "repeated_3grams": "repeated_3grams",
    "distinct_2": "distinct_2",
    "broken": "broken_captions",
    "length": "words",
    "vqa": "vqa_accuracy",
    "own": "own_accuracy",
    "judge": "judge",
    "heldout_loss": "heldout_loss",
    "heldout_accuracy": "heldout_accuracy",
    "heldout_margin": "heldout_margin",
}
"""Word -> name of the measure that it limits."""

DIGITS: Mapping[str, int] = {"heldout_loss": 4, "heldout_margin": 3}
"""Measure -> digits behind the point that are shown; one of all others."""

_DROPS = ("invention", "chair", "overcounted", "repetition", "repeated_3grams", "broken", "heldout_loss")
_RISES = (
    "recall",
    "f1",
    "instance_precision",
    "instance_recall",
    "instance_f1",
    "number",
    "place",
    "colour",
    "relation",
    "distinct_2",
    "vqa",
    "own",
    "judge",
    "heldout_accuracy",
    "heldout_margin",
)
GAINS: Mapping[str, tuple[str, int]] = {f"{word}_drop": (LIMITS[word], -1) for word in _DROPS} | {
    f"{word}_gain": (LIMITS[word], +1) for word in _RISES
}
"""Word -> the measure whose change is the gain, and the sign that makes a gain of it."""

DEV_MEASURES: tuple[Measure, ...] = (
    Measure(
        name="inventing_captions",
        numerator={"inventing": 1.0},
        denominator={"described": 1.0},
        higher_is_better=False,
        scale=100.0,
        needs="presence",
        description="captions that name an object which is not there (CHAIRs)",
    ),
    Measure(
        name="vqa_accuracy",
        numerator={"vqa_right": 1.0},
        denominator={"vqa_asked": 1.0},
        higher_is_better=True,
        scale=100.0,
        needs="text",
        description="questions answered as the annotators did, answers normalised",
    ),
    Measure(
        name="own_accuracy",
        numerator={"own_right": 1.0},
        denominator={"own_asked": 1.0},
        higher_is_better=True,
        scale=100.0,
        needs="text",
        description="your own questions answered right",
    ),
    Measure(
        name="judge",
        numerator={"judge_points": 1.0},
        denominator={"judged": 1.0},
        higher_is_better=True,
        scale=100.0,
        needs="text",
        description="what the judge at the endpoint confirms of the answers, or how it rates them",
    ),
    Measure(
        name="heldout_loss",
        numerator={"heldout_loss": 1.0},
        denominator={"heldout_terms": 1.0},
        higher_is_better=False,
        scale=1.0,
        needs="text",
        description="loss on held-out rows, in nats: a token of the answers, or a pair",
    ),
    Measure(
        name="heldout_accuracy",
        numerator={"heldout_right": 1.0},
        denominator={"heldout_pairs": 1.0},
        higher_is_better=True,
        scale=100.0,
        needs="text",
        description="held-out pairs whose chosen answer has the larger reward; a tie is half of one",
    ),
    Measure(
        name="heldout_margin",
        numerator={"heldout_margin": 1.0},
        denominator={"heldout_pairs": 1.0},
        higher_is_better=True,
        scale=1.0,
        needs="text",
        description="reward of the chosen answer above the rejected one's, on held-out pairs",
    ),
)
"""What a dev check measures beside the measures of answers in `align.claims`."""


@dataclass(frozen=True)
class Gain:
    """What a rule wants most of.

    Attributes:
        measure: its name.
        sign: +1 where a rise is the gain, -1 where a drop is.
    """

    measure: str
    sign: int


def gain_of(word: str) -> Gain:
    """The gain that a word of `keep.most` means.

    Raises:
        ValueError: an unknown word, with the nearest known one.
    """
    if word not in GAINS:
        raise ValueError(f"no such gain{nearest(word, GAINS)}")
    return Gain(*GAINS[word])


def check_limit(word: str, limit: float) -> None:
    """Refuse a limit that means nothing.

    Raises:
        ValueError: an unknown word, with the nearest known one; or a limit that asks for a gain.
    """
    if word not in LIMITS:
        raise ValueError(f"no measure {word!r}{nearest(word, LIMITS)}")
    sign = direction(word)
    if sign * limit > 0:
        allowed = "0 or less" if sign > 0 else "0 or more"
        raise ValueError(f"{word}: {limit:+g} asks for a gain, and a limit allows a loss: give {allowed}")
    if sign == 0 and limit <= 0:
        raise ValueError(f"{word}: {limit:+g}: give the percent that it may change either way")


def direction(word: str) -> int:
    """+1 for a word whose measure should be high, -1 for one that should be low, 0 for neither (length)."""
    if word == "length":
        return 0
    return -1 if word in _DROPS else 1
