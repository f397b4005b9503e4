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
