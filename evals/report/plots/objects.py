"""Which objects are invented most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evals.report.captions import Caption, invented_objects
from evals.report.load import Results
from evals.report.plots.series import all_series, legend
from evals.report.svg import Figure, drawing, fit, rect, text, x_axis
from evals.report.text import short

_MAX_OBJECTS = 8
_BAR = 8.0


def top_invented(results: Results, captions: Mapping[str, Sequence[Caption]]) -> Figure | None:
    """Mentions of absent objects, by category, most frequent over all checkpoints first."""
    series = [item for item in all_series(results.checkpoints) if captions.get(item.key)]
    counts = {item.key: invented_objects(captions[item.key]) for item in series}
    totals = (
        sum((counter for counter in counts.values()), start=type(next(iter(counts.values())))())
        if counts
        else {}
    )
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
        "Counts over the whole test set. What remains after training is what to look for in new data.",
        drawing(440, bottom + 48, "Most frequently invented objects by checkpoint", *parts),
        ["object", *(item.name for item in series)],
        [[name, *(str(counts[item.key][name]) for item in series)] for name in top],
        legend=legend(series),
    )  # fmt: skip
