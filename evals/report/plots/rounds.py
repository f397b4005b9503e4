"""The path over rounds of preference training: what each gained and cost, how well the judge still agreed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from evals.report.load import Results
from evals.report.metric import label_of, shown_name
from evals.report.svg import Figure, drawing, element, fit, line, marker, polyline, swatch, text, y_axis
from evals.report.wording import digits_of, interval

SHOWN = (
    "distinct_invention", "instance_precision", "recall", "object_recall", "repeated_captions",
)  # fmt: skip
"""Measures of the path, by name, beside the share of descriptions with an invention; those that the scores
lack are left out."""
_WIDTH, _HEIGHT = 300.0, 172.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 42.0, 286.0, 36.0, 140.0
_MOST_NAMED = 4
"""Places on the x axis that have room for "round 1"; where there are more, its number must do."""


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
    before = [None] if lines else []  # the judge says nothing of the checkpoint that the rounds start from
    if any(item.get("agreement") for item in rounds_told):
        paths["judge's balanced accuracy"] = [*before, *_agreement(rounds_told, count)]
    kinds = dict.fromkeys(kind for item in rounds_told for kind in item.get("agreement_by_kind") or ())
    start = shown_name(lines[0]["start"]["checkpoint"]) if lines else "start"
    titles = [f"round {number}" for number in range(1, count + 1)]
    if lines:
        titles.insert(0, start)
    drawn = {name: path for name, path in paths.items() if sum(point is not None for point in path) > 1}
    for kind in kinds:
        paths[f"judge on {kind}"] = [*before, *_agreement(rounds_told, count, kind)]
    rows = [[name, *(point.told if point else "–" for point in path)] for name, path in paths.items()]
    return Figure(
        key="rounds",
        title="The path over rounds",
        lead=_lead(kept, end),
        svg=_charts(drawn, titles, kept),
        header=["", *titles],
        rows=rows + _decisions(rounds_told, titles),
        legend=[("s-after", swatch(2, "s-after fill"), "the round that stands")] if kept and drawn else [],
        note=_note(lines, start, rounds_told),
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
    task = next(iter(results.main_tasks("invented")), None)
    if task is None:
        return {}
    found: dict[str, _Path] = {}
    facts, mode = results.facts[task], results.mode_of(task)
    for name in (facts.with_invention, *SHOWN):
        options = [line_ for line_ in lines if line_["task"] == task and _base(line_) == name]
        options.sort(key=lambda line_: line_["mode"] != mode)  # its primary scorer's first
        if options and not (name == "object_recall" and label_of("recall", facts) in found):
            path = [_point(options[0]["start"]), *(_point(item) for item in options[0]["rounds"])]
            found[label_of(name, facts)] = path + [None] * (count + 1 - len(path))
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


def _decisions(told: Sequence[Mapping[str, Any]], titles: Sequence[str]) -> list[list[str]]:
    """A row of the table: whether each round was kept, and at which step of its training."""
    by_title = {f"round {item['round']}": item for item in told}
    if not by_title:
        return []
    cells = []
    for title in titles:
        item = by_title.get(title)
        step = ((item or {}).get("kept") or {}).get("step")
        words = "" if item is None else "yes" if item["is_kept"] else "no"
        cells.append(f"{words}, step {step}" if words == "yes" and step is not None else words)
    return [["kept", *cells]]


def _note(lines: Sequence[Mapping[str, Any]], start: str, told: Sequence[Mapping[str, Any]]) -> str:
    """How to read the numbers, and the keep rule's reason by round: too long for a cell of the table."""
    parts = ["Each point with its 95% interval"]
    parts[0] += f"; in brackets the change since {start}, paired by picture." if lines else "."
    if lines:
        parts.append("The rounds were chosen without these numbers.")
    whys = {int(item["round"]): (item.get("kept") or {}).get("why") for item in told}
    parts += [f"Round {number}: {why}." for number, why in whys.items() if why]
    return " ".join(parts)


def _charts(paths: Mapping[str, _Path], titles: Sequence[str], kept: Any) -> Markup:
    """Drawings of their own, so that a narrow page stands them one below the other."""
    if not paths:
        return Markup("")
    return element(
        "div", *(_chart(name, path, titles, kept) for name, path in paths.items()), class_="multiples"
    )


def _chart(name: str, path: _Path, titles: Sequence[str], kept: Any) -> Markup:
    points = [(place, point) for place, point in enumerate(path) if point is not None]
    ends = [value for _, point in points for value in (point.low, point.high)]
    y = fit(ends, _BOTTOM, _TOP, pad=0.1, floor=0.0, ceiling=100.0, num_ticks=4)
    step = (_RIGHT - _LEFT - 56) / max(len(titles) - 1, 1)
    xs = [_LEFT + 28 + step * place for place in range(len(titles))]
    shown = titles if len(titles) <= _MOST_NAMED else [title.removeprefix("round ") for title in titles]
    parts = [y_axis(y, _LEFT, _RIGHT, f"{name[:1].upper()}{name[1:]}, %")]
    parts += [text(word, x, _BOTTOM + 18, "tick", "middle") for word, x in zip(shown, xs, strict=True)]
    parts.append(polyline([(xs[place], y(point.value)) for place, point in points], "path"))
    for place, point in points:
        stands = titles[place] == f"round {kept}"
        css = "s-after" if stands else "s-before"
        parts.append(line(xs[place], y(point.low), xs[place], y(point.high), "ci unclear"))
        tip = f"{titles[place]}: {point.told}"
        parts.append(marker(2 if stands else 1, xs[place], y(point.value), f"{css} fill", tip, 4.5))
    return drawing(_WIDTH, _HEIGHT, f"{name} over rounds of preference training", *parts)
