"""A line of `metrics.json`, and of `report.json`'s `metrics`: what is measured, every checkpoint's value, and
what changed.

    {"task": "chair", "metric": "chair_s", ..., "values": {"sft": 31.0, "dpo": 18.5},
     "ci": {"sft": [27.1, 35.0], "dpo": [15.2, 22.0]}, "delta": -12.5, "ci_low": -16.9, ...,
     "steps": {"base": {"sft": {"delta": ...}, "dpo": {...}}}}

Built by `evals.comparison.lines`, read by everything else.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from align.errors import AlignError
from evals.protocol import CAPTION_AIMS, Aim, Mode


class Change(BaseModel):
    """One checkpoint minus another, with its 95% interval, in the metric's unit; all None where it cannot be
    told.

    Attributes:
        p_holm: corrected over the primary metrics; None for a metric that is not one.
        p_not_worse: of a loss that is too great; None where neither direction is better.
        mde: the smallest true change that the test set would find four times in five.
        paired: whether both answered the same samples; otherwise two independent intervals were put together.
    """

    model_config = ConfigDict(extra="forbid")

    delta: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    p_method: str | None = None
    p_not_worse: float | None = None
    mde: float | None = None
    paired: bool = True

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.ci_low is not None and self.ci_high is not None and not self.ci_low <= 0 <= self.ci_high

    def become(self, other: Change) -> None:
        """Take the numbers of another."""
        for name in Change.model_fields:
            setattr(self, name, getattr(other, name))


class MetricLine(Change):
    """A metric of a part of a task. The change in the line itself is the last checkpoint against the one
    before.

    Attributes:
        metric: unique together with `task` and `split`.
        scale: 100 for percentages; values and changes are on this scale.
        points: values are on the benchmark's own scale, not shares.
        values: checkpoint -> value, in training order; None where there is none.
        ci: checkpoint -> its value's own 95% interval.
        steps: before -> after -> change, of the other steps: see `steps_of`.
        undefined: checkpoints without a denominator, whose value counts as 0.
    """

    task: str
    metric: str
    split: str
    mode: Mode = "official"
    higher_is_better: bool | None
    primary: bool = False
    measures: Aim
    scale: float = 100.0
    points: bool = False
    values: dict[str, float | None]
    ci: dict[str, tuple[float, float]] = Field(default_factory=dict)
    n: int
    clusters: int
    undefined: list[str] = Field(default_factory=list)
    description: str = ""
    steps: dict[str, dict[str, Change]] = Field(default_factory=dict)

    def change_of(self, before: str, after: str) -> Change | None:
        """The change from one checkpoint to another; None where it was not compared."""
        if (before, after) == (*[*self.values][-2:],):
            return self
        return self.steps.get(before, {}).get(after)

    def set_change(self, before: str, after: str, change: Change) -> None:
        """Keep the change of one of the steps of `steps_of`."""
        if (before, after) == (*[*self.values][-2:],):
            self.become(change)
        else:
            self.steps.setdefault(before, {})[after] = change

    @property
    def lacking(self) -> set[str]:
        """Checkpoints in which a measure of captions has nothing to measure: nobody said a colour."""
        return set(self.undefined) if self.measures in CAPTION_AIMS else set()


def steps_of(names: Iterable[str]) -> list[tuple[str, str]]:
    """What is compared with what: each checkpoint with the one before, and the later ones with the first."""
    names = [*names]
    return [*pairwise(names), *((names[0], name) for name in names[2:])]


def dump_lines(lines: Iterable[MetricLine]) -> list[dict[str, Any]]:
    """For JSON."""
    return [line.model_dump(mode="json") for line in lines]


def read_lines(raw: Any, where: str) -> list[MetricLine]:
    """The lines of a parsed `metrics.json`.

    Raises:
        AlignError: none, or one that is not what `align score` writes.
    """
    again = "run `align score` again"
    if not isinstance(raw, list) or not raw:
        raise AlignError("no metrics", where=where, fix=again)
    found = []
    for index, item in enumerate(raw):
        try:
            found.append(MetricLine.model_validate(item))
        except ValidationError as error:
            faults = [(fault["type"], ".".join(map(str, fault["loc"]))) for fault in error.errors()]
            missing = ", ".join(place for kind, place in faults if kind == "missing")
            what = f"metrics lack {missing}" if missing else f"not a line of metrics: {faults[0][1]}"
            raise AlignError(what, where=f"{where} item {index}", fix=again) from error
    return found
