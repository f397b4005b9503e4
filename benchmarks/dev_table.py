"""Markdown tables of what dev checks measured: shared by the benchmarks that train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = {
    "distinct_invention": "invented",
    "inventing_captions": "CHAIRs",
    "object_recall": "recall",
    "instance_precision": "inst. precision",
    "instance_recall": "inst. recall",
    "repeated_captions": "repeats",
    "overcounted": "overcounted",
    "words": "words",
    "vqa_accuracy": "VQA",
}
"""Measure of a dev check -> its column."""


def cells(measured: Mapping[str, Mapping[str, float]], *, delta: bool, interval: bool = False) -> list[str]:
    """A cell for each of `SHOWN`: the value, its change since step 0, and the change's interval.

    Args:
        measured: measure -> `value`, `delta`, `ci_low`, `ci_high`, as a line of dev_log.jsonl has them under
            `all`; what it lacks is left empty.

    >>> one = {"value": 24.7, "delta": -11.94, "ci_low": -15.0, "ci_high": -9.0}
    >>> cells({"distinct_invention": one}, delta=True, interval=True)[0]
    '24.7 (-11.9 [-15.0, -9.0])'
    """
    return [_cell(measured[name], delta, interval) if name in measured else "" for name in SHOWN]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table; a row may have fewer cells than the header, such as one that tells an error."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(one: Mapping[str, Any], delta: bool, interval: bool) -> str:
    bounds = f" [{one['ci_low']:+.1f}, {one['ci_high']:+.1f}]" if interval else ""
    return f"{one['value']:.1f}" + (f" ({one['delta']:+.1f}{bounds})" if delta else "")
