"""POPE: does accuracy come with an honest share of yes answers?"""

from __future__ import annotations

from evals.report.load import Results
from evals.report.plots.series import all_series, legend
from evals.report.svg import Figure, drawing, fit, line, polyline, text, x_axis, y_axis

_WIDTH, _HEIGHT = 440.0, 318.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 424.0, 30.0, 270.0


def yes_ratio(results: Results) -> Figure | None:
    """Accuracy against the predicted share of yes, a path of checkpoints for each split."""
    ratios = {line.part: line for line in results.lines("pope", "yes_ratio")}
    accuracies = [line for line in results.lines("pope", "accuracy") if line.part in ratios]
    accuracies = [line for line in accuracies if line.part != "mean"] or accuracies
    lines = [(line, ratios[line.part]) for line in accuracies]
    series = all_series(results.checkpoints)
    points = [
        [(float(ratio.values[item.key] or 0), float(accuracy.values[item.key] or 0)) for item in series]
        for accuracy, ratio in lines
    ]
    if not points:
        return None
    flat = [point for path in points for point in path]
    x = fit([point[0] for point in flat], _LEFT, _RIGHT, include=[50.0], pad=0.2, floor=0, ceiling=100)
    y = fit([point[1] for point in flat], _BOTTOM, _TOP, pad=0.15, floor=0, ceiling=100)
    parts = [
        x_axis(x, _TOP, _BOTTOM, "answers that are yes, %"),
        y_axis(y, _LEFT, _RIGHT, "accuracy, %"),
        line(x(50), _TOP, x(50), _BOTTOM, "margin"),
        text("truth: 50%", x(50) + 6, _BOTTOM - 8, "hint"),
    ]
    for path in points:
        parts.append(polyline([(x(a), y(b)) for a, b in path], "path"))
    rows = []
    for (accuracy, _), path in zip(lines, points, strict=True):
        for item, (a, b) in zip(series, path, strict=True):
            split = accuracy.part or accuracy.task_label
            parts.append(item.point(x(a), y(b), f"{item.name}, {split}: accuracy {b:.1f}%, yes {a:.1f}%"))
            rows.append([split, item.name, f"{b:.1f}", f"{a:.1f}"])
    splits = ", ".join(dict.fromkeys(row[0] for row in rows))
    return Figure(
        "pope", "Yes ratio against accuracy (POPE)",
        f"Each path is one split: {splits}. Up is better; far from 50% is a habit of yes or no.",
        drawing(_WIDTH, _HEIGHT, "POPE accuracy against share of yes answers", *parts),
        ["split", "checkpoint", "accuracy, %", "yes, %"], rows, legend=legend(series),
    )  # fmt: skip
