"""Which answers a judge prefers, and how far its preferences can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evals.report.load import Results
from evals.report.metric import shown_name
from evals.report.svg import Figure, drawing, fit, rect, text, x_axis
from evals.report.text import short

_PARTS = (("wins", "good"), ("ties", "unclear"), ("losses", "bad"))


def preferences(results: Results) -> Figure | None:
    """Shares of pairs won, tied and lost, a bar a task, with the judge's own failings as numbers."""
    lines = [line for line in results.preferences if line.get("n")]
    if not lines:
        return None
    before, after = shown_name(str(lines[0]["before"])), shown_name(str(lines[0]["after"]))
    left, right, top, row = 124.0, 420.0, 12.0, 48.0
    bottom = top + row * len(lines)
    x = fit([0.0, 100.0], left, right, include=[0.0, 100.0], num_ticks=4)
    parts = [x_axis(x, top, bottom, f"% of pairs that {after} wins, ties, loses", grid=False)]
    for index, item in enumerate(lines):
        y, start = top + row * index + 8, 0.0
        parts.append(text(_name(results, item), left - 12, y + 13, "name", "end"))
        for key, css in _PARTS:
            share = 100 * item[key] / item["n"]
            bar = rect(x(start), y, x(start + share) - x(start), 12, f"{css} fill", f"{item[key]} {key}")
            parts.append(bar)
            start += share
        told = ", ".join(f"{item[key]} {key}" for key, _ in _PARTS)
        parts.append(text(f"{told}; win rate {item['win_rate']:.0f}%", left, y + 27, "tick"))
    judge = ", ".join(str(name) for line in lines[:1] for name in line["judge"]["judge"])
    return Figure(
        "preferences", f"{after} against {before}, as a judge prefers",
        "Each pair is shown in both orders; a disagreement counts as a tie. Half of all is no preference.",
        drawing(440, bottom + 48, f"Pairs won, tied and lost by {after} against {before}", *parts),
        [
            "task", "pairs", "won, tied, lost", "win rate, % [95%]", "at equal length, %",
            "same in both orders, %", "prefers the first, %", "unscored",
        ],
        [_cells(results, item) for item in lines],
        note=f"Judge: {short(judge, 80) or 'none was asked'}. Length control by logistic regression.",
    )  # fmt: skip


def _name(results: Results, item: Mapping[str, Any]) -> str:
    return results.label_of(str(item["task"]))


def _cells(results: Results, item: Mapping[str, Any]) -> list[str]:
    low, high = item["ci"]
    return [
        _name(results, item),
        f"{item['n']:,}",
        ", ".join(str(item[key]) for key, _ in _PARTS),
        f"{item['win_rate']:.1f} [{low:.1f}, {high:.1f}]",
        *(_share(item[key]) for key in ("win_rate_equal_length", "consistency", "prefers_first")),
        str(item["unscored"]),
    ]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
