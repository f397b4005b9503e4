"""What a check hands back: numbers for `audit.json`, a verdict in words, and rows to look at."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
State = Literal["good", "look", "bad", "unknown"]
NUM_RESAMPLES = 2000
MOST_ROWS = 12
"""Pairs that a finding names."""
_LARGE = 10_000


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        key: its name in `audit.json`.
        state: good; look (worth a look); bad (mend it before training); unknown (could not be measured).
        said: one sentence with the number that decides.
        advice: what to do; empty if nothing.
        numbers: everything measured.
        rows: ids of pairs to look at, worst first.
        values: what the page draws as a histogram, in `unit`; empty: nothing.
    """

    key: str
    title: str
    state: State
    said: str
    advice: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    values: Sequence[float] | Array = ()
    unit: str = ""


def interval(values: Sequence[float] | Array, seed: int) -> dict[str, float]:
    """Mean and its 95% interval over values; `n` of them.

    A percentile bootstrap; over more than 10,000 values the mean plus and minus 1.96 standard errors, which
    is the same within a hundredth of the interval and takes no time.
    """
    data = np.asarray(values, dtype=np.float64)
    if len(data) > _LARGE:
        reach = 1.96 * float(data.std()) / math.sqrt(len(data))
        low, high = float(data.mean()) - reach, float(data.mean()) + reach
    else:
        rng = np.random.default_rng(seed)
        means = [float(data[rng.integers(0, len(data), len(data))].mean()) for _ in range(NUM_RESAMPLES)]
        low, high = np.percentile(means, [2.5, 97.5])
    return {
        "value": round(float(data.mean()), 4),
        "ci_low": round(float(low), 4),
        "ci_high": round(float(high), 4),
        "n": len(data),
    }


def share_interval(share: float, count: int) -> dict[str, float]:
    """A share of `count` with its 95% interval (Wilson 1927, J. Am. Stat. Assoc. 22: 209-212)."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return {
        "value": round(share, 4),
        "ci_low": round(max(middle - reach, 0.0), 4),
        "ci_high": round(min(middle + reach, 1.0), 4),
        "n": count,
    }


def shown(measure: dict[str, float], digits: int = 2) -> str:
    """A measure as text: `1.25 [0.90, 1.60]`."""
    return f"{measure['value']:.{digits}f} [{measure['ci_low']:.{digits}f}, {measure['ci_high']:.{digits}f}]"


@dataclass(frozen=True)
class Gap:
    """How chosen and rejected differ in one count.

    Attributes:
        mean: of chosen minus rejected, with its interval.
        effect: the mean's size in standard deviations of the count over all answers.
        wins: accuracy of preferring the answer that has more, ties half, with its interval: the area under
            the ROC curve of the count within pairs.
        values: chosen minus rejected, [N].
        order: places of the pairs, largest difference first.
    """

    mean: dict[str, float]
    effect: float
    wins: dict[str, float]
    mean_chosen: float
    mean_rejected: float
    values: Array
    order: list[int]

    @property
    def told(self) -> float:
        """The accuracy, 0.5 to 1, with which the count surely tells chosen: more of it, or less."""
        return max(self.wins["ci_low"], 1 - self.wins["ci_high"], 0.5)

    @property
    def state(self) -> State:
        """By the size of the gap or by how surely it tells, whichever is worse.

        Bad from half a standard deviation on, or where it surely tells chosen in 65% of the pairs; worth a
        look from a fifth, or 55%. A gap of two words in every pair is small, and tells in all of them.
        """
        if self.effect >= 0.5 or self.told >= 0.65:
            return "bad"
        return "look" if self.effect >= 0.2 or self.told >= 0.55 else "good"

    def numbers(self, larger_wins: str) -> dict[str, Any]:
        """For `audit.json`; `larger_wins` names that share."""
        return {
            "gap": self.mean,
            "standard_deviations": round(self.effect, 4),
            larger_wins: self.wins["value"],
            f"{larger_wins}_interval": self.wins,
            "mean_chosen": round(self.mean_chosen, 3),
            "mean_rejected": round(self.mean_rejected, 3),
        }


def gap_of(chosen: Array, rejected: Array, seed: int) -> Gap:
    """The difference of a count between chosen and rejected answers, [N] each."""
    values = chosen - rejected
    mean, spread = interval(values, seed), float(np.concatenate([chosen, rejected]).std())
    wins = float(((values > 0) + (values == 0) / 2).mean())
    return Gap(
        mean,
        effect=abs(mean["value"]) / spread if spread else 0.0,
        wins=share_interval(wins, len(values)),
        mean_chosen=float(chosen.mean()),
        mean_rejected=float(rejected.mean()),
        values=values,
        order=largest(np.abs(values)),
    )


def largest(values: Array) -> list[int]:
    """Places of the largest values, at most `MOST_ROWS`; of equal ones the first come first."""
    return [int(place) for place in np.argsort(-values, kind="stable")[:MOST_ROWS]]


class Sides:
    """A count of both answers of every pair, as they come by."""

    def __init__(self) -> None:
        self._chosen, self._rejected = array("d"), array("d")

    def add(self, chosen: float, rejected: float) -> None:
        """Of one pair."""
        self._chosen.append(chosen)
        self._rejected.append(rejected)

    @property
    def chosen(self) -> Array:
        """[N]."""
        return np.array(self._chosen)

    @property
    def rejected(self) -> Array:
        """[N]."""
        return np.array(self._rejected)

    def gap(self, seed: int) -> Gap:
        """Chosen against rejected."""
        return gap_of(self.chosen, self.rejected, seed)
