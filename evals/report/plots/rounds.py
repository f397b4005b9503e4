"""The path over rounds of preference training: what each gained and cost, how well the judge still agreed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from evals.report.captions import INVENTED
from evals.report.load import Results
from evals.report.metric import label_of, shown_name
from evals.report.svg import Figure, drawing, fit, line, marker, polyline, text, y_axis
from evals.report.wording import digits_of, interval

SHOWN = (
    "chair_s", "distinct_invention", "instance_precision", "recall", "object_recall", "repeated_captions",
)  # fmt: skip
"""Measures of the path, by name; those that the scores lack are left out."""
_WIDTH = 880.0
_PANEL, _HEIGHT = 293.0, 210.0
_COLUMNS = 3
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 274.0, 48.0, 166.0


@dataclass(frozen=True)
class _Point:
    """A value with its 95% interval; the text says it, and how it changed."""

    value: float
    low: float
    high: float
    told: str


_Path = Sequence[_Point | None]
"""From where the rounds started, then by round; None where there is no number."""


def rounds(results: Results, lines: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> Figure | None:
    """A small chart for each measure, and a table with what was kept and why; None for a single kept round.

    Args:
        results: the scores.
        lines: `rounds.json` of the score stage; empty where fewer than two rounds have answers.
        told: `rounds.json` of the run; empty where the pipeline has no rounds.
    """
    end = told.get("ended")
    asked, kept = int(told.get("asked", 0)), told.get("kept")
    if not lines and asked < 2 and end is None:
        return None
    rounds_told = list(told.get("rounds", []))
    count = max([len(line["rounds"]) for line in lines] + [len(rounds_told)])
    paths = _measured(results, lines, count)
    if any(item.get("agreement") for item in rounds_told):
        paths["judge's balanced accuracy"] = [None, *_agreement(rounds_told, count)]
    kinds = dict.fromkeys(kind for item in rounds_told for kind in item.get("agreement_by_kind") or ())
    start = shown_name(lines[0]["start"]["checkpoint"]) if lines else "start"
    titles = [start, *(f"round {number}" for number in range(1, count + 1))]
    drawn = {name: path for name, path in paths.items() if sum(point is not None for point in path) > 1}
    for kind in kinds:
        paths[f"judge on {kind}"] = [None, *_agreement(rounds_told, count, kind)]
    rows = [[name, *(point.told if point else "–" for point in path)] for name, path in paths.items()]
    return Figure(
        key="rounds",
        title="The path over rounds",
        lead=_lead(kept, end),
        svg=_charts(drawn, titles, kept),
        header=["", *titles],
        rows=rows + _decisions(rounds_told, count),
        note="Each point with its 95% interval; in brackets the change since "
        f"{start}, paired by picture. The rounds were chosen without these numbers.",
        wide=True,
        open_table=True,
    )


def _lead(kept: Any, end: Mapping[str, Any] | None) -> str:
    if kept is None:
        return "Each round starts from the checkpoint that the one before made."
    stands = f"the checkpoint of round {kept} stands" if kept else "what it started from stands"
    if end is None:
        return f"Each round starts from the checkpoint that the one before made; {stands}."
    return f"Round {end['round']} ended the loop: {end['why']}; {stands}."


def _measured(results: Results, lines: Sequence[Mapping[str, Any]], count: int) -> dict[str, _Path]:
    """Of the main caption task, by the measure's label."""
    tasks = [task for kind in INVENTED if (task := results.main_task(kind)) is not None]
    found: dict[str, _Path] = {}
    for name in SHOWN if tasks else ():
        options = [line_ for line_ in lines if line_["task"] == tasks[0] and _base(line_) == name]
        mode = results.mode_of(tasks[0])
        options.sort(key=lambda line_: line_["mode"] != mode)  # its primary scorer's first
        if options and not (name == "object_recall" and label_of("recall") in found):
            path = [_point(options[0]["start"]), *(_point(item) for item in options[0]["rounds"])]
            found[label_of(name)] = path + [None] * (count + 1 - len(path))
    return found


def _base(line_: Mapping[str, Any]) -> str:
    return str(line_["metric"]).removesuffix("_strict")


def _point(item: Mapping[str, Any]) -> _Point | None:
    value, ends = item.get("value"), item.get("ci")
    if value is None:
        return None
    low, high = ends or (value, value)
    change = interval(item.get("delta"), item.get("ci_low"), item.get("ci_high"))
    return _Point(
        value, low, high, digits_of(value, 1) + (f" ({change})" if item.get("delta") is not None else "")
    )


def _agreement(told: Iterable[Mapping[str, Any]], count: int, kind: str | None = None) -> list[_Point | None]:
    """The judge's balanced accuracy by round, of all claims or of one kind, in percent."""
    found: list[_Point | None] = [None] * count
    for item in told:
        own = item.get("agreement") if kind is None else (item.get("agreement_by_kind") or {}).get(kind)
        if agreement := own:
            value, low, high = (100 * agreement[key] for key in ("value", "ci_low", "ci_high"))
            words = f"{value:.1f} [{low:.1f}, {high:.1f}]"
            found[int(item["round"]) - 1] = _Point(value, low, high, words)
    return found


def _decisions(told: Sequence[Mapping[str, Any]], count: int) -> list[list[str]]:
    """Rows of the table: whether each round was kept, at which step, and the rule's reason."""
    if not told:
        return []
    by_round = {int(item["round"]): item for item in told}
    cells = [by_round.get(number, {}) for number in range(1, count + 1)]
    kept = ["–" if not item else "yes" if item["is_kept"] else "no" for item in cells]
    rows = [["kept", "", *kept]]
    rules = [item.get("kept") or {} for item in cells]
    if any(rules):
        rows.append(["at step", "", *(str(rule.get("step", "–")) for rule in rules)])
        rows.append(["because", "", *(str(rule.get("why", "–")) for rule in rules)])
    return rows


def _charts(paths: Mapping[str, _Path], titles: Sequence[str], kept: Any) -> Markup:
    if not paths:
        return Markup("")
    parts = []
    for place, (name, path) in enumerate(paths.items()):
        dx, dy = _PANEL * (place % _COLUMNS), _HEIGHT * (place // _COLUMNS)
        parts.append(_chart(name, path, titles, kept, dx, dy))
    height = _HEIGHT * -(-len(paths) // _COLUMNS)
    return drawing(_WIDTH, height, "Measures over rounds of preference training", *parts)


def _chart(name: str, path: _Path, titles: Sequence[str], kept: Any, dx: float, dy: float) -> Markup:
    points = [(place, point) for place, point in enumerate(path) if point is not None]
    ends = [value for _, point in points for value in (point.low, point.high)]
    y = fit(ends, _BOTTOM + dy, _TOP + dy, pad=0.1, floor=None, num_ticks=4)
    step = (_RIGHT - _LEFT - 24) / max(len(titles) - 1, 1)
    xs = [dx + _LEFT + 12 + step * place for place in range(len(titles))]
    parts = [y_axis(y, dx + _LEFT, dx + _RIGHT, f"{name}, %")]
    parts += [
        text(title, x, dy + _BOTTOM + 18, "tick", "middle") for title, x in zip(titles, xs, strict=True)
    ]
    parts.append(polyline([(xs[place], y(point.value)) for place, point in points], "path"))
    for place, point in points:
        css = "s-after" if place == kept else "s-before"
        parts.append(line(xs[place], y(point.low), xs[place], y(point.high), "ci unclear"))
        tip = f"{titles[place]}: {point.told}"
        parts.append(marker(2 if place == kept else 1, xs[place], y(point.value), f"{css} fill", tip, 4.5))
    return Markup("").join(parts)
