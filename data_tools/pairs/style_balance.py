"""Take pairs away until chosen and rejected answers are alike in style, so that DPO can't learn style.

Length and the other counts are balanced first (`pair_balance`); then sentence length, commas, list lines and
hedging words. A feature's gap is the mean over pairs of chosen minus rejected, in standard deviations over
all answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_tools.material.answer_style import BALANCED
from data_tools.pairs.balance import Limits, take_away


@dataclass(frozen=True)
class StyleBalanced:
    """What is left, and the gaps by feature before and after.

    Attributes:
        kept: places of the pairs that stay, in order.
        taken: places of those that were taken away, in the order of their going.
    """

    kept: NDArray[np.int64]
    taken: NDArray[np.int64]
    before: dict[str, float]
    after: dict[str, float]


def balance_style(
    styles: NDArray[np.float64],
    gaps: NDArray[np.float64],
    tolerance: float,
    limits: Limits,
    max_taken: int,
) -> StyleBalanced:
    """Take away at most `max_taken` pairs.

    Args:
        styles: [N, 2, F], the features (`style_of`) of each pair's chosen and rejected answer.
        gaps: [N, G], what was balanced before, of each pair; this must not spoil it.
        tolerance: largest gap of a feature, in standard deviations.
        limits: of `gaps`.
    """
    number = len(styles)
    spread = styles.reshape(-1, len(BALANCED)).std(axis=0) if number else np.ones(len(BALANCED))
    style = np.divide(
        styles[:, 0] - styles[:, 1], spread, out=np.zeros((number, len(BALANCED))), where=spread > 0
    )
    before = gaps * limits.weights
    may_fall = [False] * len(BALANCED) + list(limits.may_fall)
    ones = np.ones(number, dtype=np.int64)
    steps = take_away(
        np.column_stack([style / tolerance, before]), ones, may_fall, max_taken, "style balance"
    )
    taken = np.array([place for place, _ in steps], dtype=np.int64)
    kept = np.setdiff1d(np.arange(number), taken)
    return StyleBalanced(kept, taken, _named(style), _named(style[kept]))


def _named(gaps: NDArray[np.float64]) -> dict[str, float]:
    means = gaps.mean(axis=0) if len(gaps) else np.zeros(len(BALANCED))
    return {name: round(float(means[place]), 4) for place, name in enumerate(BALANCED)}
