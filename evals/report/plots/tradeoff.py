"""Inventions against what fewer of them can be bought with: recall, and length."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from evals.report.captions import Described, Matched
from evals.report.load import Results
from evals.report.plots.series import Series, all_series, legend
from evals.report.svg import Figure, Scale, drawing, fit, polyline, text, x_axis, y_axis
from evals.report.wording import interval

_WIDTH, _HEIGHT = 440.0, 318.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 424.0, 30.0, 270.0


def against_recall(results: Results) -> list[Figure]:
    """For each kind of caption task, the checkpoints as a path in the plane of recall and inventions."""
    figures = (_against_recall(results, task) for task in results.main_tasks("invented"))
    return [figure for figure in figures if figure is not None]


def _against_recall(results: Results, task: str) -> Figure | None:
    facts = results.facts[task]
    invented, recall = results.find(task, facts.invented), results.find(task, facts.guard)
    if not invented or not recall:
        return None
    points = [(recall.values[name], invented.values[name]) for name in results.checkpoints]
    if any(x is None or y is None for x, y in points):
        return None
    pairs = [(float(x or 0), float(y or 0)) for x, y in points]
    x = fit([pair[0] for pair in pairs], _LEFT, _RIGHT, pad=0.3, floor=0, ceiling=100)
    y = fit([pair[1] for pair in pairs], _BOTTOM, _TOP, include=[0.0], pad=0.15)
    series = all_series(results.checkpoints)
    parts = [
        x_axis(x, _TOP, _BOTTOM, f"{recall.label.lower()}: objects that are there and named, %"),
        y_axis(y, _LEFT, _RIGHT, f"{invented.label}, % of named objects that are invented"),
        polyline([(x(a), y(b)) for a, b in pairs], "path"),
        text("better ↘", _RIGHT - 4, _BOTTOM - 8, "hint", "end"),
        *_labelled(series, pairs, x, y),
    ]
    where = "" if facts.named == "never" else f" ({invented.task_label})"
    return Figure(
        f"recall-{facts.kind}", f"Invention against recall{where}",
        "Down is fewer inventions, right is more of what is there. Moving left buys the gain by silence.",
        drawing(_WIDTH, _HEIGHT, f"{invented.label} against {recall.label.lower()}{where}", *parts),
        ["checkpoint", f"{recall.label.lower()}, %", f"{invented.label}, %"],
        [[item.name, f"{a:.1f}", f"{b:.1f}"] for item, (a, b) in zip(series, pairs, strict=True)],
        legend=legend(series),
    )  # fmt: skip


def against_length(results: Results, described: Described) -> Figure | None:
    """Inventions against words a description, with the last two checkpoints cut to equal length beside it."""
    words, matched, facts = described.words, described.matched, described.facts
    invented = results.find(described.task, facts.invented)
    names = [name for name in results.checkpoints if name in words]
    if not invented or len(names) < 2:
        return None
    pairs = [(words[name], float(invented.values[name] or 0)) for name in names]
    series = [item for item in all_series(results.checkpoints) if item.key in names]
    fair = matched[0] if matched else None
    cut_points = _cut_points(fair, pairs, series) if fair else []
    x = fit([pair[0] for pair in pairs], _LEFT, _RIGHT, pad=0.25, floor=0)
    y = fit(
        [*(pair[1] for pair in pairs), *(point[2] for point in cut_points)],
        _BOTTOM,
        _TOP,
        include=[0.0],
        pad=0.15,
    )
    parts = [
        x_axis(x, _TOP, _BOTTOM, "words per caption"),
        y_axis(y, _LEFT, _RIGHT, f"{invented.label}, % of named objects that are invented"),
        polyline([(x(a), y(b)) for a, b in pairs], "path"),
    ]
    rows = [
        [item.name, "as written", f"{a:.1f}", f"{b:.1f}", ""]
        for item, (a, b) in zip(series, pairs, strict=True)
    ]
    for item, (a, b), (place, value) in [
        (series[index], pairs[index], point) for index, *point in cut_points
    ]:
        parts.append(polyline([(x(a), y(b)), (x(place), y(value))], f"dotted {item.css}"))
        parts.append(item.point(x(place), y(value), f"{item.name}, cut: {value:.1f}%", hollow=True, size=6))
    for item in matched:
        rows.append(
            [
                series[-2].name,
                item.method,
                f"{item.words_before:.1f}",
                f"{item.chair_before:.1f}",
                f"{item.true_before:.2f}",
            ]
        )
        rows.append(
            [
                series[-1].name,
                item.method,
                f"{item.words_after:.1f}",
                f"{item.chair_after:.1f}",
                f"{item.true_after:.2f}",
            ]
        )
    parts += _labelled(series, pairs, x, y, [(x(place), y(value)) for _, place, value in cut_points])
    where = "" if facts.named == "never" else f" ({invented.task_label})"
    return Figure(
        f"length-{facts.kind}" if where else "length", f"Invention against length{where}",
        "The hollow mark is what saying less alone would do: the longer captions, cut blindly to the other's "
        "mean length. A real gain lies below it, or names more of what is there.",
        drawing(_WIDTH, _HEIGHT, f"{invented.label} against length{where}", *parts),
        ["checkpoint", "captions", "words", f"{invented.label}, %", "true objects"], rows,
        legend=legend(series),
        note=_method(fair, invented.label, series[-2].name, series[-1].name) if fair else "",
    )  # fmt: skip


def _method(fair: Matched, label: str, before: str, after: str) -> str:
    chair = f"{before} {fair.chair_before:.1f}, {after} {fair.chair_after:.1f}"
    change = interval(fair.chair_delta, fair.chair_low, fair.chair_high)
    true = f"{fair.true_before:.2f}, {fair.true_after:.2f}"
    method = fair.method[0].upper() + fair.method[1:]
    return f"{method}: {label} {chair} ({change}); true objects a caption {true}."


def _cut_points(
    fair: Matched, pairs: Sequence[tuple[float, float]], series: Sequence[Series]
) -> list[tuple[int, float, float]]:
    """(series index, words, CHAIRi) of the side that was cut, when the cut is worth drawing."""
    sides = [
        (len(series) - 2, fair.words_before, fair.chair_before),
        (len(series) - 1, fair.words_after, fair.chair_after),
    ]
    return [side for side in sides if pairs[side[0]][0] - side[1] > 0.02 * pairs[side[0]][0]]


def _labelled(
    series: Sequence[Series],
    pairs: Sequence[tuple[float, float]],
    x: Scale,
    y: Scale,
    others: Sequence[tuple[float, float]] = (),
) -> list[Markup]:
    """Markers with their names beside them, each on a side where no other name or mark is."""
    places = [(x(a), y(b)) for a, b in pairs]
    taken = [*places, *others]
    parts = []
    for item, (a, b), (left, top) in zip(series, pairs, places, strict=True):
        parts.append(item.point(left, top, f"{item.name}: {a:.1f}, {b:.1f}%", size=6))
        width = 8.0 * len(item.name)
        sides = [(11, -7, "start"), (-11, -7, "end"), (11, 17, "start"), (-11, 17, "end")]
        free = [
            side
            for side in sides
            if not _crowded(left, top, side, width, [place for place in taken if place != (left, top)])
        ]
        dx, dy, anchor = (free or sides)[0]
        taken.append(_middle(left, top, (dx, dy, anchor), width))
        parts.append(text(item.name, left + dx, top + dy, f"name {item.css}-text", anchor))
    return parts


def _middle(left: float, top: float, side: tuple[int, int, str], width: float) -> tuple[float, float]:
    dx, dy, anchor = side
    return left + dx + (width / 2 if anchor == "start" else -width / 2), top + dy - 4


def _crowded(
    left: float, top: float, side: tuple[int, int, str], width: float, taken: Sequence[tuple[float, float]]
) -> bool:
    x, y = _middle(left, top, side, width)
    inside = x - width / 2 >= _LEFT and x + width / 2 <= _RIGHT + 10
    return not inside or any(abs(x - a) < width / 2 + 12 and abs(y - b) < 14 for a, b in taken)
