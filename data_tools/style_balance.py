"""Take pairs away until chosen and rejected answers are alike in style, so that DPO can't learn style.

Length is balanced first (`length_balance`); then sentence length, commas, list lines and hedging words. A
feature's gap is the mean over pairs of chosen minus rejected, in standard deviations over all answers. Every
step takes away the pair without which the gaps are smallest together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    styles: Sequence[Styles],
    lengths: Sequence[int],
    tolerance: float,
    length_tolerance: float | None,
    max_taken: int,
) -> StyleBalanced:
    """Take away at most `max_taken` pairs.

    Args:
        styles: of each pair.
        lengths: tokens of chosen minus rejected of each pair.
        tolerance: largest gap of a feature, in standard deviations.
        length_tolerance: largest mean of `lengths`, tokens, which this must not spoil; None: any.
    """
    sides = np.array(styles, dtype=np.float64).reshape(len(styles), 2, len(FEATURES))
    spread = sides.reshape(-1, len(FEATURES)).std(axis=0) if styles else np.ones(len(FEATURES))
    gaps = np.divide(
        sides[:, 0] - sides[:, 1], spread, out=np.zeros((len(styles), len(FEATURES))), where=spread > 0
    )
    limits = np.full(len(FEATURES), tolerance)
    if length_tolerance is not None:
        gaps = np.column_stack([gaps, np.asarray(lengths, dtype=np.float64)])
        limits = np.append(limits, length_tolerance)
    kept, taken = _take(gaps / limits, max_taken)
    return StyleBalanced(kept, taken, _named(gaps), _named(gaps[kept]))


def _take(gaps: NDArray[np.float64], max_taken: int) -> tuple[list[int], list[int]]:
    """Greedy: `gaps` are in units of their limits, so all means within [-1, 1] is the goal."""
    kept, taken = list(range(len(gaps))), []
    total = gaps.sum(axis=0)
    while len(kept) > 1 and len(taken) < max_taken and np.abs(total / len(kept)).max() > 1:
        means = (total - gaps[kept]) / (len(kept) - 1)
        place = int(np.argmin(np.round((means**2).sum(axis=1), 12)))
        total = total - gaps[kept[place]]
        taken.append(kept.pop(place))
    return kept, taken


def _named(gaps: NDArray[np.float64]) -> dict[str, float]:
    means = gaps.mean(axis=0) if len(gaps) else np.zeros(len(FEATURES))
    return {name: round(float(means[place]), 4) for place, name in enumerate(FEATURES)}
