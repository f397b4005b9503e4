"""Visual questions: accuracy by kind, and which answers flipped."""

from __future__ import annotations

from collections.abc import Sequence

from evals.report.flips import Flips
from evals.report.load import Results
from evals.report.metric import Metric, shown_name
from evals.report.plots.series import all_series, legend
from evals.report.svg import Figure, drawing, fit, line, polyline, rect, text, x_axis


def by_kind(results: Results) -> Figure | None:
    """Accuracy of each kind of question, the checkpoints as dots on one line."""
    lines = [
        item
        for task in results.main_tasks("by_kind")[:1]
        for item in results.lines_of(task, results.facts[task].by_kind)
        if item.part != "mean of kinds"
    ]
    if not lines:
        return None
    series = all_series(results.checkpoints)
    left, right, top, row = 104.0, 420.0, 12.0, 34.0
    bottom = top + row * len(lines)
    x = fit(
        [float(value or 0) for item in lines for value in item.values.values()],
        left,
        right,
        pad=0.08,
        floor=0,
        ceiling=100,
    )
    parts = [x_axis(x, top, bottom, "accuracy, %")]
    for index, item in enumerate(lines):
        y = top + row * (index + 0.5)
        values = [float(item.values[one.key] or 0) for one in series]
        parts.append(text(_kind(item), left - 12, y + 4, "name", "end"))
        # Equal values would hide each other, so each checkpoint has its own height.
        heights = [y + 7 * (place - (len(series) - 1) / 2) for place in range(len(series))]
        dots = [(x(value), height) for value, height in zip(values, heights, strict=True)]
        parts.append(polyline(dots, "path"))
        parts += [
            one.point(*dot, f"{one.name}: {value:.1f}%")
            for one, dot, value in zip(series, dots, values, strict=True)
        ]
    return Figure(
        "vqa", "Visual questions by kind",
        "Right is better. Alignment must not cost answers: the last two marks show the price.",
        drawing(440, bottom + 48, "VQA accuracy by kind of question", *parts),
        ["kind", *(one.name for one in series)],
        [[_kind(item), *(f"{item.values[one.key] or 0:.1f}" for one in series)] for item in lines],
        legend=legend(series),
    )  # fmt: skip


def flips_chart(results: Results, flips: Sequence[Flips]) -> Figure | None:
    """Answers gained to the right, lost to the left, for each task and split."""
    flips = [item for item in flips if item.gained or item.lost]
    if not flips:
        return None
    before, after = shown_name(results.before), shown_name(results.after)
    left = min(210.0, max(110.0, 7.2 * max(len(item.name) for item in flips) + 18))
    right, top, row = 420.0, 26.0, 30.0
    bottom = top + row * len(flips)
    most = max(max(item.gained, item.lost) for item in flips)
    x = fit([-most, most], left, right, include=[0.0], pad=0.18, num_ticks=4)
    parts = [
        x_axis(x, top, bottom, "answers", lambda v: f"{abs(v):.0f}"),
        line(x(0), top - 4, x(0), bottom, "zero"),
        text("← lost", x(0) - 10, 14, "hint", "end"),
        text("gained →", x(0) + 10, 14, "hint"),
    ]
    for index, item in enumerate(flips):
        y = top + row * index + 7
        parts.append(text(item.name, left - 12, y + 12, "name", "end"))
        parts.append(rect(x(-item.lost), y, x(0) - x(-item.lost), 16, "bad fill", f"{item.lost} lost"))
        parts.append(rect(x(0), y, x(item.gained) - x(0), 16, "good fill", f"{item.gained} gained"))
        parts.append(text(str(item.lost), x(-item.lost) - 5, y + 12, "tick", "end"))
        parts.append(text(str(item.gained), x(item.gained) + 5, y + 12, "tick"))
    return Figure(
        "flips", "Flips gained and lost",
        f"Gained: wrong with {before}, right with {after}. Lost: the other way round. "
        "A small net change can hide many flips.",
        drawing(440, bottom + 48, f"Answers gained and lost from {before} to {after}", *parts),
        ["task", "gained", "lost", "right both times", "wrong both times"],
        [[one.name, *map(str, (one.gained, one.lost, one.both_right, one.both_wrong))] for one in flips],
    )  # fmt: skip


def _kind(item: Metric) -> str:
    return item.part or "all kinds"
