"""Which objects are invented most."""

from __future__ import annotations

from collections import Counter

from evals.report.inventions import invented_in
from evals.report.load import Results
from evals.report.plots.series import all_series, legend
from evals.report.svg import Figure, drawing, fit, rect, text, x_axis
from evals.report.text import short

_MAX_OBJECTS = 8
_BAR = 8.0


def top_invented(results: Results) -> Figure | None:
    """Mentions of absent objects in the first task that looks for them, most frequent over all first."""
    by_task = {task: _counts(results, task) for task in results.tasks}
    task = next((task for task, found in by_task.items() if found), None)
    if task is None:
        return None
    counts = by_task[task]
    series = [item for item in all_series(results.checkpoints) if item.key in counts]
    totals = sum(counts.values(), start=Counter())
    top = sorted(totals, key=lambda name: (-totals[name], name))[:_MAX_OBJECTS]
    if not top:
        return None
    left, right, top_y = 112.0, 420.0, 12.0
    row = _BAR * len(series) + 10
    bottom = top_y + row * len(top)
    x = fit([counts[item.key][name] for item in series for name in top], left, right, include=[0.0], pad=0.04)
    parts = [x_axis(x, top_y, bottom, "mentions of objects that are not there", lambda v: f"{v:.0f}")]
    for index, name in enumerate(top):
        y = top_y + row * index + 5
        parts.append(text(short(name, 16), left - 10, y + _BAR * len(series) / 2 + 4, "name", "end"))
        for place, item in enumerate(series):
            count = counts[item.key][name]
            parts.append(
                rect(
                    left,
                    y + place * _BAR,
                    x(count) - left,
                    _BAR - 1.5,
                    f"{item.css} fill",
                    f"{item.name}: {name} {count} times",
                )
            )
    return Figure(
        "objects", "Objects most often invented",
        f"Counts over all of {results.label_of(task)}. "
        "What remains after training is what to look for in new data.",
        drawing(440, bottom + 48, "Most frequently invented objects by checkpoint", *parts),
        ["object", *(item.name for item in series)],
        [[name, *(str(counts[item.key][name]) for item in series)] for name in top],
        legend=legend(series),
    )  # fmt: skip


def _counts(results: Results, task: str) -> dict[str, Counter[str]]:
    """Checkpoint -> how often it named each object without its being there; empty for other tasks."""
    mode, counts = results.mode_of(task), {}
    for checkpoint, rows in results.rows.get(task, {}).items():
        named = [found for row in rows if (found := invented_in(row, mode)) is not None]
        if named:
            counts[checkpoint] = Counter(name for found in named for name in found)
    return counts
