"""The main table, the tiles above it and the health table, as rows of ready text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evals.report.load import Metric, Results, shown_name
from evals.report.plots.series import all_series
from evals.report.verdict import interval

_TILES = [
    ("chair", "chair_s", "captions with at least one invented object"),
    ("chair", "chair_i", "named objects that are invented"),
    ("chair", "recall", "objects in the picture that are named"),
    ("vqa", "accuracy", "visual questions answered right"),
]
_COUNTS = ("failed", "empty", "truncated", "unparsed")
_UNHEALTHY = 0.02


@dataclass(frozen=True)
class Row:
    """A line of the main table; `values` are (text, sort key) of the checkpoints."""

    task: str
    metric: str
    arrow: str
    direction: str
    primary: bool
    values: list[tuple[str, str]]
    delta: str
    interval: str
    effect: str
    sort: str
    p: str
    p_sort: str
    n: str
    clusters: str
    mde: str


def main_rows(results: Results) -> list[Row]:
    """All metrics, primary ones of a task before its others."""
    places = {task: place for place, task in enumerate(dict.fromkeys(line.task for line in results.metrics))}
    return [
        _row(line) for line in sorted(results.metrics, key=lambda line: (places[line.task], not line.is_key))
    ]


def columns(results: Results) -> list[tuple[str, str]]:
    """(header, kind) of the main table."""
    names = [(shown_name(name), "num") for name in results.checkpoints]
    numbers = [("p", "num"), ("n", "num"), ("clusters", "num"), ("MDE", "num")]
    return [("Task", ""), ("Metric", ""), *names, ("Δ [95% interval]", "num"), *numbers]


def tiles(results: Results) -> list[dict[str, Any]]:
    """The four numbers that most readers come for."""
    found = []
    for task, metric, about in _TILES:
        line = results.find(task, metric)
        if line is None:
            continue
        values = [
            (series.name, series.css, shown(line.values[series.key], line))
            for series in all_series(results.checkpoints)
        ]
        name = line.label if task == "chair" else f"{line.task_label} {line.label.lower()}"
        found.append(
            {
                "name": name,
                "about": about,
                "arrow": _arrow(line),
                "direction": _direction(line),
                "values": values,
                "delta": f"{interval(line.delta, line.ci_low, line.ci_high)} points"
                + (": no reliable change" if line.effect == "unclear" else ""),
                "effect": line.effect,
            }
        )
    return found


def health(results: Results) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """(header, rows); each cell is (text, whether it is worth a look)."""
    header = ["checkpoint", "task", "answers", *_COUNTS, "words per answer"]
    rows = []
    for item in results.health:
        total = int(item.get("n") or 0)
        cells = [
            (shown_name(str(item["checkpoint"])), False),
            (str(item["task"]), False),
            (f"{total:,}", False),
        ]
        for kind in _COUNTS:
            count = int(item.get(kind) or 0)
            share = count / total if total else 0.0
            cells.append((f"{count:,} ({100 * share:.1f}%)" if count else "0", share > _UNHEALTHY))
        words = item.get("mean_words")
        cells.append(("–" if words is None else f"{words:.1f}", False))
        rows.append(cells)
    return header, rows


def shown(value: float | None, line: Metric) -> str:
    """One decimal, with % for shares."""
    return "–" if value is None else f"{value:.1f}" + ("%" if line.is_share else "")


def shown_p(p: float | None) -> str:
    """Three digits, or `<.001`."""
    if p is None:
        return ""
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _row(line: Metric) -> Row:
    p = line.p_holm if line.p_holm is not None else line.p
    text = interval(line.delta, line.ci_low, line.ci_high)
    delta, _, rest = text.partition(" ")
    mode = f" ({line.mode})" if line.mode not in ("", "official") else ""
    is_corrected = line.p_holm is not None or p is None
    return Row(
        task=line.task_label,
        metric=line.label + mode,
        arrow=_arrow(line),
        direction=_direction(line),
        primary=line.is_key,
        values=[(_digits(value, 1, "–"), _digits(value, 6)) for value in line.values.values()],
        delta=delta,
        interval=rest,
        effect=line.effect,
        sort=_digits(line.delta, 6),
        p=shown_p(p) + ("" if is_corrected else "*"),
        p_sort=_digits(p, 8),
        n=f"{line.n:,}",
        clusters=f"{line.clusters:,}",
        mde=_digits(line.mde, 1),
    )


def _digits(value: float | None, digits: int, missing: str = "") -> str:
    return missing if value is None else f"{value:.{digits}f}"


def _arrow(line: Metric) -> str:
    return {True: "↑", False: "↓", None: ""}[line.higher_is_better]


def _direction(line: Metric) -> str:
    return {True: "higher is better", False: "lower is better", None: ""}[line.higher_is_better]
