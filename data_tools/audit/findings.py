"""What a check hands back: numbers for `audit.json`, a verdict in words, and rows to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

State = Literal["good", "look", "bad", "unknown"]
NUM_RESAMPLES = 2000


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
        values: what the page draws as a histogram, in `unit`.
    """

    key: str
    title: str
    state: State
    said: str
    advice: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    unit: str = ""


def interval(values: Sequence[float], seed: int) -> dict[str, float]:
    """Mean and its 95% percentile bootstrap interval over values; `n` of them."""
    data = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = [float(data[rng.integers(0, len(data), len(data))].mean()) for _ in range(NUM_RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "value": round(float(data.mean()), 4),
        "ci_low": round(float(low), 4),
        "ci_high": round(float(high), 4),
        "n": len(data),
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
        larger_wins: accuracy of preferring the answer that has more, ties half.
        order: places of the pairs, largest difference first.
    """

    mean: dict[str, float]
    effect: float
    larger_wins: float
    mean_chosen: float
    mean_rejected: float
    values: list[float]
    order: list[int]

    @property
    def state(self) -> State:
        """Bad from half a standard deviation on, worth a look from a fifth."""
        return "bad" if self.effect >= 0.5 else "look" if self.effect >= 0.2 else "good"

    def numbers(self, larger_wins: str) -> dict[str, Any]:
        """For `audit.json`; `larger_wins` names that share."""
        return {
            "gap": self.mean,
            "standard_deviations": round(self.effect, 4),
            larger_wins: round(self.larger_wins, 4),
            "mean_chosen": round(self.mean_chosen, 3),
            "mean_rejected": round(self.mean_rejected, 3),
        }


def gap_of(pairs: Sequence[tuple[float, float]], seed: int) -> Gap:
    """The difference of a count between chosen and rejected, given as pairs of it."""
    values = [chosen - rejected for chosen, rejected in pairs]
    mean, spread = interval(values, seed), float(np.std([count for pair in pairs for count in pair]))
    return Gap(
        mean,
        effect=abs(mean["value"]) / spread if spread else 0.0,
        larger_wins=sum((value > 0) + (value == 0) / 2 for value in values) / len(values),
        mean_chosen=sum(pair[0] for pair in pairs) / len(pairs),
        mean_rejected=sum(pair[1] for pair in pairs) / len(pairs),
        values=values,
        order=[int(place) for place in np.argsort([-abs(value) for value in values], kind="stable")],
    )
