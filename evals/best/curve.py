"""What the best of n answers is worth, and costs, for growing n."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from align.claims import Measure, PictureTruth, measure_answer, measures_for
from align.rows.schema import Candidate
from align.scoring.stats import compare
from evals.best.ranking import Ranked

RESAMPLES = 2_000


@dataclass(frozen=True)
class Change:
    """A measure of the best of n answers, and its paired difference from the first answer alone."""

    value: float
    delta: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True)
class Point:
    """One n of the curve.

    Attributes:
        tokens: generated a prompt, the mean over prompts of all its n draws.
        moved: share of prompts whose best answer is not the first.
        measures: name -> its change, on the measure's scale.
    """

    n: int
    tokens: float
    moved: float
    score: float | None
    measures: Mapping[str, Change]

    def to_json(self) -> dict[str, Any]:
        """As it stands in `curve.json`."""
        return asdict(self)


def best_of(group: Sequence[Ranked], n: int) -> Ranked:
    """The best of a prompt's first `n` draws; of equals the earlier, and one without score only alone.

    The first draw is always there, so that n = 1 is plain sampling.
    """
    drawn = [item for item in group if item.draw < n] or [group[0]]
    return max(drawn, key=lambda item: (item.score is not None, item.score or 0.0, -item.draw))


def draw_curve(
    groups: Sequence[Sequence[Ranked]],
    sizes: Sequence[int],
    truths: Mapping[str, PictureTruth],
    seed: int,
) -> list[Point]:
    """One point for each n.

    Args:
        truths: prompt id -> what is in its picture; prompts without are measured in their text alone, unless
            there are any with: then they are left out.
    """
    known = [group for group in groups if group[0].row.prompt_id in truths] or list(groups)
    measures = measures_for([truths[group[0].row.prompt_id] for group in known] if truths else None)
    first = [_values(best_of(group, 1).row, truths) for group in known]
    points = []
    for n in sizes:
        chosen = [best_of(group, n) for group in groups]
        values = [_values(best_of(group, n).row, truths) for group in known]
        scores = [item.score for item in chosen if item.score is not None]
        points.append(
            Point(
                n=n,
                tokens=float(np.mean([_tokens(group, n) for group in groups])),
                moved=float(np.mean([item.draw > 0 for item in chosen])),
                score=float(np.mean(scores)) if scores else None,
                measures=_changes(measures, first, values, seed),
            )
        )
    return points


def _tokens(group: Sequence[Ranked], n: int) -> int:
    """Tokens of the first n draws: an answer drawn again costs again."""
    drawn = [item for item in group if item.draw < n]
    again = n - len(drawn)  # draws that repeated an earlier answer
    mean = sum(item.row.num_tokens for item in drawn) / max(len(drawn), 1)
    return round(sum(item.row.num_tokens for item in drawn) + max(again, 0) * mean)


def _values(row: Candidate, truths: Mapping[str, PictureTruth]) -> dict[str, float]:
    return measure_answer(row.text, truths.get(row.prompt_id))


def _changes(
    measures: Sequence[Measure],
    first: Sequence[Mapping[str, float]],
    after: Sequence[Mapping[str, float]],
    seed: int,
) -> dict[str, Change]:
    """Each measure that both sides have, with a paired 95% interval over prompts."""
    told = [
        measure for measure in measures if measure.of(first) is not None and measure.of(after) is not None
    ]
    if not told:
        return {}
    sums = [[_sums(measure, side) for measure in told] for side in (first, after)]
    compared = compare(sums[0], sums[1], [False] * len(told), resamples=RESAMPLES, seed=seed)
    return {
        measure.name: Change(
            *(measure.scale * value for value in (one.after, one.delta, one.ci_low, one.ci_high))
        )
        for measure, one in zip(told, compared, strict=True)
    }


def _sums(measure: Measure, values: Sequence[Mapping[str, float]]) -> np.ndarray:
    """float64 [C, 2]: numerator and denominator of each answer."""
    return np.array(
        [
            [
                sum(weight * row.get(name, 0.0) for name, weight in side.items())
                for side in (measure.numerator, measure.denominator)
            ]
            for row in values
        ]
    )
