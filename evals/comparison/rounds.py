"""The path over rounds of preference training: each round's checkpoint against the one they started from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evals.comparison.metric_line import Change, MetricLine

_LINE = (
    "task",
    "metric",
    "split",
    "mode",
    "measures",
    "higher_is_better",
    "scale",
    "points",
    "n",
    "clusters",
)
_CHANGE = ("delta", "ci_low", "ci_high", "p", "mde")


def round_name(number: int) -> str:
    """A round's checkpoint among those that are compared; a name that no recipe is likely to have."""
    return f"after_round_{number}"


def lines_by_round(rows: Sequence[MetricLine], start: str, rounds: int) -> list[dict[str, Any]]:
    """The lines of `rounds.json` from a comparison of `start` and the rounds' checkpoints, in this order.

    Args:
        rows: as `align score` compares them.
        rounds: how many; two at least.

    Returns:
        Of each metric what it is, its value and interval at `start`, and by round its value, its interval,
        and its paired change since `start` with an interval of its own.
    """
    return [
        row.model_dump(mode="json", include=set(_LINE))
        | {"start": {"checkpoint": start, "value": row.values[start], "ci": row.ci.get(start)}}
        | {"rounds": [_round(row, start, number) for number in range(1, rounds + 1)]}
        for row in rows
    ]


def _round(row: MetricLine, start: str, number: int) -> dict[str, Any]:
    name = round_name(number)
    change = row.change_of(start, name) or Change()
    return {
        "round": number,
        "value": row.values[name],
        "ci": row.ci.get(name),
        **change.model_dump(include=set(_CHANGE)),
    }
