"""Differences between the last two checkpoints with their 95% intervals, turned so that right is better."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from evals.report.load import Results
from evals.report.margins import Margins
from evals.report.metric import Metric, shown_name
from evals.report.svg import Figure, Scale, drawing, fit, line, marker, text, x_axis
from evals.report.table import is_key
from evals.report.wording import interval, join_words, signed

_MAX_ROWS = 40
_ROW = 25.0
_WIDTH = 880.0


def forest(results: Results, margins: Margins) -> Figure | None:
    """Forest plot of the primary metrics, or of the first ones where none is primary."""
    found = [item for item in results.metrics if item.gain is not None and item.change.ci_low is not None]
    found = [item for item in found if is_key(item, results)] or found
    lines = [item for item in found if item.is_share][:_MAX_ROWS]
    if not lines:
        return None
    left = min(330.0, max(150.0, 7.2 * max(len(_name(item)) for item in lines) + 20))
    right, top = 716.0, 26.0
    bottom = top + _ROW * len(lines) + 4
    ends = [end for item in lines for end in _gains(item)]
    losses = [-margin for item in lines if (margin := _margin(item, margins)) is not None]
    scale = fit([*ends, *losses], left, right, include=[0.0], pad=0.06, num_ticks=6)
    parts = [
        x_axis(
            scale,
            top,
            bottom,
            "change in the better direction, percentage points",
            lambda v: signed(f"{v:+g}") if v else "0",
        ),
        line(scale(0), top - 6, scale(0), bottom, "zero"),
        text("← worse", scale(0) - 10, 14, "hint", "end"),
        text("better →", scale(0) + 10, 14, "hint"),
    ]
    for index, item in enumerate(lines):
        parts.append(_row(item, top + _ROW * (index + 0.5) + 2, left, scale, _margin(item, margins)))
    before, after = shown_name(results.before), shown_name(results.after)
    rows = [
        [
            item.task_label,
            item.label,
            _interval(item),
            {"unclear": "zero inside"}.get(item.effect, item.effect),
        ]
        for item in lines
    ]
    others = list(dict.fromkeys(_name(item) for item in found if not item.is_share))
    return Figure(
        key="forest",
        title=f"What changed from {before} to {after}",
        lead="A line is a metric's change with its 95% interval; one that touches zero is no reliable change."
        + (" Short dashed ticks are the largest loss that counts as kept." if losses else ""),
        svg=drawing(_WIDTH, bottom + 44, f"Forest plot of changes from {before} to {after}", *parts),
        header=["task", "metric", f"{after} − {before}, points [95% interval]", "verdict"],
        rows=rows,
        note=f"On scales of their own, and in the table only: {join_words(others)}." if others else "",
        wide=True,
    )


def _gains(item: Metric) -> Sequence[float]:
    low, high = item.change.ci_low or 0.0, item.change.ci_high or 0.0
    return (low, high) if item.higher_is_better else (-high, -low)


def _margin(item: Metric, margins: Margins) -> float | None:
    """The loss that still counts as kept, in points: of what guards a task, and of questions answered right,
    both over all of the task."""
    if item.part:
        return None
    return margins.recall if item.is_guard else margins.vqa if item.measures == "ability" else None


def _name(item: Metric) -> str:
    return f"{item.task_label} · {item.label}"


def _interval(item: Metric) -> str:
    return interval(item.change.delta, item.change.ci_low, item.change.ci_high)


def _row(item: Metric, y: float, left: float, scale: Scale, margin: float | None) -> Markup:
    low, high = _gains(item)
    gain = item.gain or 0.0
    css = {"better": "good", "worse": "bad", "unclear": "unclear"}[item.effect]
    parts = [
        text(_name(item), left - 14, y + 4, "name", "end"),
        line(scale(low), y, scale(high), y, f"ci {css}"),
        marker(
            0,
            scale(gain),
            y,
            f"{css} fill",
            f"{item.label}: {_interval(item)}",
            4.5,
        ),
        text(_interval(item), _WIDTH - 4, y + 4, f"value {css}-text", "end"),
    ]
    if margin is not None:
        parts.insert(1, line(scale(-margin), y - 8, scale(-margin), y + 8, "margin"))
    return Markup("").join(parts)
