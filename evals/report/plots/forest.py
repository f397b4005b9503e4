"""Differences between the last two checkpoints with their 95% intervals, turned so that right is better."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from evals.report.load import Metric, Results, shown_name
from evals.report.svg import Figure, drawing, fit, line, marker, text, x_axis
from evals.report.verdict import interval, signed

_MAX_ROWS = 16
_ROW = 25.0
_WIDTH = 880.0


def forest(results: Results, margins: dict[tuple[str, str], float]) -> Figure | None:
    """Forest plot of the primary metrics, or of the first ones where none is primary.

    Args:
        margins: (type of task, metric) -> the loss that still counts as kept, in points.
    """
    lines = [
        item
        for item in results.metrics
        if item.is_share and item.gain is not None and item.ci_low is not None
    ]
    lines = ([item for item in lines if item.is_key] or lines)[:_MAX_ROWS]
    if not lines:
        return None
    left, right, top = 200.0, 716.0, 26.0
    bottom = top + _ROW * len(lines) + 4
    ends = [end for item in lines for end in _gains(item)]
    losses = [
        -margin
        for key, margin in margins.items()
        if any((item.type, item.base_name) == key for item in lines)
    ]
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
        margin = margins.get((item.type, item.base_name)) if not item.part else None
        parts.append(_row(item, top + _ROW * (index + 0.5) + 2, left, scale, margin))
    before, after = shown_name(results.before), shown_name(results.after)
    rows = [
        [
            item.task_label,
            item.label,
            interval(item.delta, item.ci_low, item.ci_high),
            {"unclear": "zero inside"}.get(item.effect, item.effect),
        ]
        for item in lines
    ]
    return Figure(
        key="forest",
        title=f"What changed from {before} to {after}",
        lead="A line is a metric's change with its 95% interval; one that touches zero is no reliable change."
        + (" Short dashed ticks are the largest loss that counts as kept." if losses else ""),
        svg=drawing(_WIDTH, bottom + 44, f"Forest plot of changes from {before} to {after}", *parts),
        header=["task", "metric", f"{after} − {before}, points [95% interval]", "verdict"],
        rows=rows,
        wide=True,
    )


def _gains(item: Metric) -> Sequence[float]:
    low, high = item.ci_low or 0.0, item.ci_high or 0.0
    return (low, high) if item.higher_is_better else (-high, -low)


def _row(item: Metric, y: float, left: float, scale, margin: float | None) -> Markup:
    low, high = _gains(item)
    gain = item.gain or 0.0
    css = {"better": "good", "worse": "bad", "unclear": "unclear"}[item.effect]
    parts = [
        text(f"{item.task_label} · {item.label}", left - 14, y + 4, "name", "end"),
        line(scale(low), y, scale(high), y, f"ci {css}"),
        marker(
            0,
            scale(gain),
            y,
            f"{css} fill",
            f"{item.label}: {interval(item.delta, item.ci_low, item.ci_high)}",
            4.5,
        ),
        text(interval(item.delta, item.ci_low, item.ci_high), _WIDTH - 4, y + 4, f"value {css}-text", "end"),
    ]
    if margin is not None:
        parts.insert(1, line(scale(-margin), y - 8, scale(-margin), y + 8, "margin"))
    return Markup("").join(parts)
