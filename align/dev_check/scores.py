"""From a check's answers to its measures, their changes since step 0, and the intervals of those.

A measure is a ratio of two sums over pictures; the paired bootstrap of `align.scoring.stats` draws pictures.
Each change is looked at over all pictures, over the half that chooses and over the half that confirms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from align.claims import Measure, measure_answer, measures_for
from align.dev_check.asked import Asked, first_half
from align.dev_check.heldout import HeldoutItem
from align.dev_check.words import DEV_MEASURES
from align.scoring.normalise import clean, normalise
from align.scoring.stats import Array, Comparison, compare
from align.scoring.vqa_accuracy import vqa_accuracy

Values = Mapping[str, float]
Item = Asked | HeldoutItem
"""What a check measures: a question's answer, or the loss on a held-out row."""
VIEWS = ("all", "first_half", "second_half")
_RESAMPLES = 2000
_DIGITS = 4


@dataclass(frozen=True)
class Change:
    """A measure at a check against step 0, in the measure's own unit (points for shares).

    Attributes:
        ci_low, ci_high: of the change, paired, at `dev.level`.
        se: standard error of the change.
    """

    value: float
    delta: float
    ci_low: float
    ci_high: float
    se: float

    def to_json(self) -> dict[str, float]:
        """Its numbers by name."""
        return asdict(self)


def values_of(item: Asked, answer: str) -> dict[str, float]:
    """The additive values of one answer, by name."""
    if item.kind == "vqa":
        return {"vqa_right": vqa_accuracy(answer, item.answers, "strict"), "vqa_asked": 1.0}
    if item.kind == "own" and not item.answers:
        return {}
    if item.kind == "own":
        right = normalise(clean(answer)) in {normalise(clean(text)) for text in item.answers}
        return {"own_right": float(right), "own_asked": 1.0}
    values = dict(measure_answer(answer, item.truth))
    if item.truth is not None:
        values |= {"inventing": float(values["kinds_invented"] > 0), "described": 1.0}
    return values


class Scorer:
    """Compares the answers of a check with those of step 0.

    Args:
        items: what every check measures.
        level: of the intervals.
        start: step 0's values, one mapping an item, in the order of `items`.

    Attributes:
        measures: what is measured, in the order of the log.
    """

    def __init__(self, items: Sequence[Item], level: float, start: Sequence[Values]) -> None:
        self._level = level
        self._clusters = {name: row for row, name in enumerate(sorted({item.cluster for item in items}))}
        self._places = [self._clusters[item.cluster] for item in items]
        # halves of the questions and of the held-out rows each, so that neither half is without one of them
        chosen = first_half(item for item in items if isinstance(item, Asked))
        chosen |= first_half(item for item in items if isinstance(item, HeldoutItem))
        first = np.array([name in chosen for name in self._clusters])
        self._views = {"all": first | True, "first_half": first, "second_half": ~first}
        self.measures = measures_of(items)
        self._start = self._sums(start)

    def changes(self, values: Sequence[Values]) -> dict[str, dict[str, Change]]:
        """View -> measure -> change; a view without pictures is left out."""
        now = self._sums(values)
        return {
            view: self._compared(now, rows) for view, rows in self._views.items() if rows.any() and len(now)
        }

    def _compared(self, now: Sequence[Array], rows: Any) -> dict[str, Change]:
        before, after = ([sums[rows] for sums in side] for side in (self._start, now))
        found = compare(before, after, [False] * len(now), resamples=_RESAMPLES, seed=0, level=self._level)
        return {
            measure.name: Change(*(round(x * measure.scale, _DIGITS) for x in _numbers(one)))
            for measure, one in zip(self.measures, found, strict=True)
        }

    def _sums(self, values: Sequence[Values]) -> list[Array]:
        """Of each measure the sums a cluster: float64 [C, 2], numerators and denominators."""
        found = []
        for measure in self.measures:
            sums = np.zeros((len(self._clusters), 2))
            for place, own in zip(self._places, values, strict=True):
                sums[place, 0] += _weighted(measure.numerator, own)
                sums[place, 1] += _weighted(measure.denominator, own)
            found.append(sums)
        return found


def measures_of(items: Sequence[Item]) -> list[Measure]:
    """What can be measured of these questions and rows."""
    truths = [item.truth for item in items if item.truth is not None]
    kinds = {item.kind for item in items}
    found = list(measures_for(truths)) if "description" in kinds else []
    has = {
        "inventing_captions": bool(truths),
        "vqa_accuracy": "vqa" in kinds,
        "own_accuracy": any(item.kind == "own" and item.answers for item in items),
        "judge": any(isinstance(item, Asked) and item.is_judged for item in items),
        "heldout_loss": bool(kinds & {"answer", "pair"}),
        "heldout_accuracy": "pair" in kinds,
        "heldout_margin": "pair" in kinds,
    }
    return [*found, *(measure for measure in DEV_MEASURES if has[measure.name])]


def changes_from_json(line: Mapping[str, Any], view: str) -> dict[str, Change]:
    """The changes that a line of the log holds for a view; empty where it has none."""
    return {name: Change(**numbers) for name, numbers in (line.get(view) or {}).items()}


def _numbers(one: Comparison) -> tuple[float, ...]:
    return one.after, one.delta, one.ci_low, one.ci_high, one.standard_error


def _weighted(weights: Mapping[str, float], values: Values) -> float:
    return sum(weight * values.get(name, 0.0) for name, weight in weights.items())
