"""Yes-or-no questions: does accuracy come with an honest share of yes answers?"""

from __future__ import annotations

from markupsafe import Markup

from evals.report.load import Results
from evals.report.plots.series import all_series, legend
from evals.report.svg import Figure, Scale, drawing, fit, line, polyline, text, x_axis, y_axis

_WIDTH, _HEIGHT = 440.0, 318.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 424.0, 30.0, 270.0
# More points than this in several paths are a tangle: then the mean over the splits is drawn.
_MAX_POINTS = 9


def yes_ratios(results: Results) -> list[Figure]:
    """For each task with a share of yes, accuracy against it, a path of checkpoints for each split."""
    tasks = dict.fromkeys(line.task for line in results.metrics if line.base_name == "yes_ratio")
    figures = (_yes_ratio(results, task) for task in tasks)
    return [figure for figure in figures if figure is not None]


def _yes_ratio(results: Results, task: str) -> Figure | None:
    ratios = {line.part: line for line in results.lines_of(task, "yes_ratio")}
    accuracies = [line for line in results.lines_of(task, "accuracy") if line.part in ratios]
    means = [line for line in accuracies if line.part == "mean"]
    accuracies = [line for line in accuracies if line.part != "mean"] or accuracies
    if len(accuracies) * len(results.checkpoints) > _MAX_POINTS:
        accuracies = means or accuracies[:1]
    lines = [(line, ratios[line.part]) for line in accuracies]
    series = all_series(results.checkpoints)
    points = [
        [(float(ratio.values[item.key] or 0), float(accuracy.values[item.key] or 0)) for item in series]
        for accuracy, ratio in lines
    ]
    if not points:
        return None
    label, truth = results.label_of(task), results.true_share(task)
    flat = [point for path in points for point in path]
    x = fit(
        [point[0] for point in flat],
        _LEFT,
        _RIGHT,
        include=[] if truth is None else [truth],
        pad=0.2,
        floor=0,
        ceiling=100,
    )
    y = fit([point[1] for point in flat], _BOTTOM, _TOP, pad=0.15, floor=0, ceiling=100)
    parts = [
        x_axis(x, _TOP, _BOTTOM, "answers that are yes, %"),
        y_axis(y, _LEFT, _RIGHT, "accuracy, %"),
        *(_truth(x, truth) if truth is not None else ()),
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
    lead = f"Each path is one split: {splits}. " if len(points) > 1 else ""
    lead += "The mean over the splits. " if accuracies == means else ""
    return Figure(
        f"yes-{task}", f"Yes ratio against accuracy ({label})",
        f"{lead}Up is better; far from the share that is true is a habit of yes or no.",
        drawing(_WIDTH, _HEIGHT, f"{label}: accuracy against share of yes answers", *parts),
        ["split", "checkpoint", "accuracy, %", "yes, %"], rows, legend=legend(series),
    )  # fmt: skip


def _truth(x: Scale, share: float) -> list[Markup]:
    left = x(share) > (_LEFT + _RIGHT) / 2
    place = (x(share) - 6, "end") if left else (x(share) + 6, "start")
    return [
        line(x(share), _TOP, x(share), _BOTTOM, "margin"),
        text(f"truth: {share:.0f}%", place[0], _BOTTOM - 8, "hint", place[1]),
    ]
