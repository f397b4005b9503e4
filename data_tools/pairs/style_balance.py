"""Take pairs away until chosen and rejected answers are alike in style, so that DPO can't learn style.

Length and the other counts are balanced first (`pair_balance`); then sentence length, commas, list lines and
hedging words. A feature's gap is the mean over pairs of chosen minus rejected, in standard deviations over
all answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_tools.pairs.balance import Gaps, Limits, take_away

FEATURES = ("words_per_sentence", "commas", "list_lines", "hedges")
_SENTENCE_END = re.compile(r"[.!?]+(?:\s|$)")
_LIST_LINE = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+", re.M)
_HEDGE = re.compile(
    r"\b(?:may|might|perhaps|possibly|probably|likely|seems?|appears?|suggest(?:s|ing)?|could)\b", re.I
)


Styles = tuple[tuple[float, ...], tuple[float, ...]]
"""The features (`style_of`) of a pair's chosen and rejected answer."""


@dataclass(frozen=True)
class StyleBalanced:
    """What is left, and the gaps by feature before and after.

    Attributes:
        kept: indices of the pairs that stay, in order.
        taken: indices of those that were taken away, in the order of their going.
    """

    kept: list[int]
    taken: list[int]
    before: dict[str, float]
    after: dict[str, float]


def style_of(text: str) -> tuple[float, ...]:
    """The features of one answer: words a sentence, commas a word, list lines, hedging words a word.

    >>> style_of("A dog, perhaps. It sits.")
    (2.5, 0.2, 0.0, 0.2)
    """
    words = max(len(text.split()), 1)
    sentences = max(len(_SENTENCE_END.findall(text)), 1)
    lines = len(_LIST_LINE.findall(text))
    return (words / sentences, text.count(",") / words, float(lines), len(_HEDGE.findall(text)) / words)


def balance_style(
    styles: Sequence[Styles], gaps: Sequence[Gaps], tolerance: float, limits: Limits, max_taken: int
) -> StyleBalanced:
    """Take away at most `max_taken` pairs.

    Args:
        styles: of each pair.
        gaps: what was balanced before, of each pair; this must not spoil it.
        tolerance: largest gap of a feature, in standard deviations.
        limits: of `gaps`.
    """
    sides = np.array(styles, dtype=np.float64).reshape(len(styles), 2, len(FEATURES))
    spread = sides.reshape(-1, len(FEATURES)).std(axis=0) if styles else np.ones(len(FEATURES))
    style = np.divide(
        sides[:, 0] - sides[:, 1], spread, out=np.zeros((len(styles), len(FEATURES))), where=spread > 0
    )
    before = np.array(gaps, dtype=np.float64).reshape(len(gaps), -1) * limits.weights
    may_fall = [False] * len(FEATURES) + list(limits.may_fall)
    ones = np.ones(len(styles), dtype=np.int64)
    taken = [
        place
        for place, _ in take_away(np.column_stack([style / tolerance, before]), ones, may_fall, max_taken)
    ]
    kept = sorted(set(range(len(styles))) - set(taken))
    return StyleBalanced(kept, taken, _named(style), _named(style[kept]))


def _named(gaps: NDArray[np.float64]) -> dict[str, float]:
    means = gaps.mean(axis=0) if len(gaps) else np.zeros(len(FEATURES))
    return {name: round(float(means[place]), 4) for place, name in enumerate(FEATURES)}
