"""The main table, the tiles above it and the health table, as rows of ready text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from evals.comparison.metric_line import Change
from evals.report.findings import UNHEALTHY, shown
from evals.report.guards import GUARDED_MEASURES, guarded_tasks
from evals.report.load import Results, whole_of
from evals.report.metric import Metric, shown_name
from evals.report.plots.series import all_series
from evals.report.unasked import Unasked
from evals.report.wording import digits_of, interval, shown_p, signed

_GUARD_TILES = [
    ("instance_precision", "named instances that are there: of two dogs one, where one is"),
    ("repeated_captions", "captions that name an object behind more than one number"),
]
_QUOTED = re.compile(r"`([^`]+)`")
_COUNTS = ("failed", "empty", "truncated", "unparsed")
_THOUGHTS = ("thoughts", "unclosed")


SECTIONS = {"truth": "How much of what is said is true", "form": "Repetition, grammar and length"}
"""Aim of measures (see `evals.protocol.Aim`) -> the title of their table."""
_LENGTHS = ("words", "mentions_per_caption")
"""A benchmark's own measures of length, which stand with the others."""


@dataclass(frozen=True)
class Section:
    """A table of its own under the results; rows begin with their task."""

    title: str
    header: list[str]
    rows: list[list[str]]

    @property
    def first(self) -> list[list[str]]:
        """The rows of the first task."""
        return [row for row in self.rows if row[0] == self.rows[0][0]]

    @property
    def others(self) -> list[list[str]]:
        """The rows of the other tasks, folded away on the page."""
        return [row for row in self.rows if row[0] != self.rows[0][0]]


@dataclass(frozen=True)
class Cells:
    """A step's cells of a line: the difference, its interval, p and the minimum detectable effect."""

    delta: str
    interval: str
    effect: str
    sort: str
    p: str
    p_sort: str
    mde: str


@dataclass(frozen=True)
class Row:
    """A line of the main table; `values` are (text, interval, sort key) of the checkpoints.

    Attributes:
        steps: the cells of each comparison, in the order of `Results.steps`.
    """

    task: str
    metric: str
    about: str
    arrow: str
    direction: str
    primary: bool
    values: list[tuple[str, str, str]]
    steps: list[Cells]
    n: str
    clusters: str


def main_rows(results: Results) -> list[Row]:
    """All published metrics, primary ones of a task before its others; the rest is in `caption_sections`."""
    places = {task: place for place, task in enumerate(results.tasks)}
    lines = [line for line in results.metrics if _section_of(line) not in SECTIONS]
    ordered = sorted(lines, key=lambda line: (places[line.task], not is_key(line, results)))
    return [_row(line, results) for line in ordered]


def caption_sections(results: Results) -> list[Section]:
    """The measures of captions that no benchmark publishes, a table a section, tasks in order."""
    header = ["task", "measure", *map(shown_name, results.checkpoints)]
    header += [f"{step_names(results)[0]} [95%]"] if results.steps else []
    found = []
    for aim, title in SECTIONS.items():
        lines = [line for line in results.metrics if _section_of(line) == aim]
        if lines:
            rows = [_caption_cells(_row(line, results)) for line in lines]
            found.append(Section(title, [*header, "what it is"], rows))
    return found


def _section_of(line: Metric) -> str:
    return "form" if line.base_name in _LENGTHS else line.measures


def _caption_cells(row: Row) -> list[str]:
    """The values and the last step's difference; of one checkpoint, the values' own intervals."""
    values = [f"{value} {ends}".strip() if not row.steps else value for value, ends, _ in row.values]
    steps = [f"{step.delta} {step.interval}".strip() for step in row.steps[:1]]
    about = _QUOTED.sub(r"“\1”", row.about)
    return [row.task, f"{row.metric} {row.arrow}".strip(), *values, *steps, about]


def is_key(line: Metric, results: Results) -> bool:
    """Whether a line is shown at once: primary, or a measure without which fewer inventions mean little."""
    if line.primary or (line.is_guard and line.mode == results.mode_of(line.task)):
        return True
    return line.base_name in GUARDED_MEASURES and line.task in guarded_tasks(results)


def step_names(results: Results) -> list[str]:
    """`DPO − SFT` and so on, the last step first."""
    return [f"{shown_name(after)} − {shown_name(before)}" for before, after in results.steps]


def tiles(results: Results) -> list[dict[str, Any]]:
    """The numbers that most readers come for, or other primary ones; and two that they should not miss."""
    found = [
        (line, about)
        for task in results.main_tasks("tiles")
        for name, about in results.facts[task].tiles.items()
        if (line := results.find(task, name)) is not None
    ]
    tasks = {line.task for line, _ in found}
    for aim in ("invention", "ability", "probing"):
        for line in results.primary(aim):
            if line.task not in tasks and line.kind not in {item.kind for item, _ in found}:
                tasks.add(line.task)
                found.append((line, line.description or line.label))
    guarded = [
        (line, about)
        for name, about in _GUARD_TILES
        for task in guarded_tasks(results)[:1]
        if (line := whole_of(results.lines_of(task, name))) is not None
    ]
    return [_tile(line, about, results) for line, about in [*found[:3], *guarded, *found[3:4]]]


def health(results: Results) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """(header, rows); each cell is (text, whether it is worth a look)."""
    thought = any(item.get("thoughts") for item in results.health)
    kinds = (*_COUNTS, *(_THOUGHTS if thought else ()))
    header = ["checkpoint", "task", "answers", *kinds, "words per answer"]
    rows = []
    for item in results.health:
        total, task = int(item.get("n") or 0), str(item["task"])
        cells = [
            (shown_name(str(item["checkpoint"])), False),
            (results.label_of(task), False),
            (f"{total:,}", False),
        ]
        for kind in kinds:
            count = int(item.get(kind) or 0)
            share = count / total if total else 0.0
            cells.append(
                (
                    f"{count:,} ({100 * share:.1f}%)" if count else "0",
                    share > UNHEALTHY and kind != "thoughts",
                )
            )
        words = item.get("mean_words")
        cells.append(("–" if words is None else f"{words:.1f}", False))
        rows.append(cells)
    return header, rows


def unasked_measures(results: Results, unasked: Unasked) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of the measures that changed without being asked to."""
    sides = (results.before, results.after)
    has_one_task = len({item.line.task for item in unasked.measures}) == 1
    first = f"measure ({_task_name(unasked.measures[0].line)})" if has_one_task else "measure"
    header = [first, *map(shown_name, sides), "change [95%]", "z"]
    rows = [
        [
            _measure_name(item.line, has_one_task),
            *(shown(item.line, item.line.values[name]) for name in sides),
            interval(
                item.line.change.delta, item.line.change.ci_low, item.line.change.ci_high, item.line.digits
            ),
            signed(f"{item.z:+.1f}"),
        ]
        for item in unasked.measures
    ]
    return header, rows


def _task_name(line: Metric) -> str:
    return line.facts.label


def _measure_name(line: Metric, has_one_task: bool) -> str:
    task = line.part if has_one_task else line.task_label
    # The arrow never stands alone in a line.
    return f"{task} · {line.label}\u00a0{_arrow(line)}".removeprefix(" · ").strip()


def unasked_words(results: Results, unasked: Unasked) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of the phrases, with the share of descriptions that have each."""
    header = ["phrase", shown_name(results.before), shown_name(results.after), "gained, lost", "z"]
    rows = [
        [
            f"“{item.change.text}”",
            *(f"{100 * count / item.change.total:.1f}%" for count in (item.change.before, item.change.after)),
            f"{len(item.change.gained):,}, {len(item.change.lost):,}",
            signed(f"{item.change.z:+.1f}"),
        ]
        for item in unasked.words
    ]
    return header, rows


def about_unasked(unasked: Unasked, results: Results) -> str:
    """How the changes were found, in a few sentences."""
    names = list(dict.fromkeys(line.label for line in results.metrics if line.base_name in unasked.aimed_at))
    aimed = f" What was aimed at is left out: {'; '.join(names)}." if names else ""
    phrases = (
        f" and {unasked.num_phrases:,} words and phrases of the descriptions" if unasked.num_phrases else ""
    )
    return (
        f"Of {unasked.num_measures:,} measures{phrases}, the greatest changes beyond chance (after Holm's "
        f"correction for so many), by z: the change over its paired standard error.{aimed}"
    )


def _tile(line: Metric, about: str, results: Results) -> dict[str, Any]:
    series = all_series(results.checkpoints)
    change = line.change
    delta = interval(change.delta, change.ci_low, change.ci_high, line.digits)
    delta += " points" + (": no reliable change" if line.effect == "unclear" else "")
    if change.delta is None:
        low, high = line.ci.get(results.after, (None, None))
        delta = "" if low is None else f"95% interval {shown(line, low)} to {shown(line, high)}"
    return {
        "name": line.label if line.facts.named == "never" else f"{line.task_label} {line.label.lower()}",
        "about": about,
        "arrow": _arrow(line),
        "direction": _direction(line),
        "values": [(item.name, item.css, shown(line, line.values[item.key])) for item in series],
        "delta": delta,
        "effect": line.effect,
    }


def _row(line: Metric, results: Results) -> Row:
    mode = f" ({line.mode})" if line.mode not in ("", "official") else ""
    earlier = [line.changes.get(step, Change()) for step in results.steps[1:]]
    changes = [line.change, *earlier] if results.steps else []
    return Row(
        task=line.task_label,
        metric=line.label + mode,
        about=line.description,
        arrow=_arrow(line),
        direction=_direction(line),
        primary=is_key(line, results),
        values=[_value(line, name) for name in results.checkpoints],
        steps=[_cells(line, change) for change in changes],
        n=f"{line.n:,}",
        clusters=f"{line.clusters:,}",
    )


def _value(line: Metric, checkpoint: str) -> tuple[str, str, str]:
    value, digits = line.values[checkpoint], line.digits
    low, high = line.ci.get(checkpoint, (None, None))
    ends = "" if low is None else f"[{digits_of(low, digits)}, {digits_of(high, digits)}]"
    return digits_of(value, digits, "–"), ends, "" if value is None else f"{value:.6f}"


def _cells(line: Metric, change: Change) -> Cells:
    delta, _, rest = interval(change.delta, change.ci_low, change.ci_high, line.digits).partition(" ")
    p = change.p_holm if change.p_holm is not None else change.p
    is_corrected = change.p_holm is not None or p is None
    return Cells(
        delta=delta,
        interval=rest + ("" if change.paired else " unpaired"),
        effect=line.effect_of(change),
        sort="" if change.delta is None else f"{change.delta:.6f}",
        p=shown_p(p) + ("" if is_corrected else "*"),
        p_sort="" if p is None else f"{p:.8f}",
        mde=digits_of(change.mde, line.digits),
    )


def _arrow(line: Metric) -> str:
    return {True: "↑", False: "↓", None: ""}[line.higher_is_better]


def _direction(line: Metric) -> str:
    return {True: "higher is better", False: "lower is better", None: ""}[line.higher_is_better]
