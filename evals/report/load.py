"""What the report is made from: the score folder, and what earlier stages left beside their results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from align.digest import MANIFEST
from align.errors import AlignError
from align.rows.schema import Score, read_rows
from evals.comparison.metric_line import MetricLine, read_lines, steps_of
from evals.report.metric import Metric, part_of
from evals.report.source import Source, read_json, read_source
from evals.tasks.facts import Facts
from evals.tasks.registry import known_facts


@dataclass(frozen=True)
class Results:
    """Everything that the page shows, read and checked.

    Attributes:
        checkpoints: names in training order; the last is compared with the one before.
        rows: task -> checkpoint -> scored samples in file order.
        bad_rows: rows that could not be read, as `where: reason`.
        cards: the tasks' protocols.
        notes: checkpoint -> task -> who judged, see `Task.notes`.
        preferences: a judge's, a line a task, see `evals.comparison.preferences`.
        apart: task -> why it cannot be compared; only of several runs.
        remarks: what else a reader must know of a comparison of runs.
        definitions: task -> its metrics as ratios of sums over the rows' values; empty in older scores.
        lines_as_scored: of `metrics.json`, all of them; `metrics` lacks those of parts not asked.
        facts: of every task.
    """

    checkpoints: Sequence[str]
    metrics: Sequence[Metric]
    lines_as_scored: Sequence[MetricLine]
    health: Sequence[Mapping[str, Any]]
    raw_health: Any
    rows: Mapping[str, Mapping[str, Sequence[Score]]]
    bad_rows: Sequence[str]
    cards: Sequence[Mapping[str, Any]] = ()
    notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    preferences: Sequence[Mapping[str, Any]] = ()
    apart: Mapping[str, Sequence[str]] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    source: Source = field(default_factory=Source)
    definitions: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    facts: Mapping[str, Facts] = field(default_factory=dict)

    @cached_property
    def index(self) -> Mapping[tuple[str, str], Mapping[str, Score]]:
        """(task, checkpoint) -> sample id -> row."""
        return {
            (task, name): {row.sample_id: row for row in rows}
            for task, sides in self.rows.items()
            for name, rows in sides.items()
        }

    @property
    def is_single(self) -> bool:
        """Whether there is one checkpoint and nothing to compare it with."""
        return len(self.checkpoints) == 1

    @property
    def before(self) -> str:
        """The checkpoint before the last; the last itself where it is the only one."""
        return self.checkpoints[-2:][0]

    @property
    def after(self) -> str:
        """The last checkpoint."""
        return self.checkpoints[-1]

    @property
    def steps(self) -> list[tuple[str, str]]:
        """(before, after) of every comparison that the scores hold, the last step first."""
        if self.is_single:
            return []
        last = (self.before, self.after)
        found = {step for line in self.metrics for step in line.changes}
        return [last, *(step for step in steps_of(self.checkpoints) if step in found and step != last)]

    @cached_property
    def tasks(self) -> Mapping[str, str]:
        """Task -> its kind, in the order of the recipe."""
        return {line.task: line.kind for line in self.metrics}

    def label_of(self, task: str) -> str:
        """What readers call a task."""
        return (self.facts.get(task) or known_facts(task, task, ())).label

    def main_task(self, kind: str) -> str | None:
        """The first task of that kind, by the order of the recipe."""
        return next((task for task, found in self.tasks.items() if found == kind), None)

    def main_tasks(self, fact: str) -> list[str]:
        """The first task of each kind of which a fact is told (a name of `Facts`); those whose metrics say
        which task they are of before the others, then by kind."""
        first: dict[str, str] = {}
        for task, kind in self.tasks.items():
            first.setdefault(kind, task)
        told = [task for task in first.values() if getattr(self.facts[task], fact)]
        return sorted(told, key=lambda task: (self.facts[task].named != "never", self.tasks[task]))

    def lines_of(self, task: str, name: str) -> list[Metric]:
        """The lines of a metric of a task, as its primary scorer sees it."""
        mode = self.mode_of(task)
        found = [line for line in self.metrics if line.task == task and line.base_name == name]
        return [line for line in found if line.mode == mode] or found

    def find(self, task: str, name: str) -> Metric | None:
        """A task's metric over all of it; of several parts, their mean."""
        return whole_of(self.lines_of(task, name))

    def primary(self, measures: str) -> list[Metric]:
        """The primary lines of that aim, in order."""
        return [line for line in self.metrics if line.primary and line.measures == measures]

    def mode_of(self, task: str) -> str:
        """The task's primary scorer: `official` or `strict`."""
        return next((line.mode for line in self.metrics if line.task == task), "official")

    def metric_of(self, task: str) -> str:
        """The name of the task's first metric."""
        return next((line.base_name for line in self.metrics if line.task == task), "")

    def sums_in(self, row: Score, metric: str) -> tuple[float, float] | None:
        """(numerator, denominator) that one answer adds to a metric of its task; None where the scores do not
        tell, or the row lacks a value."""
        found = next((item for item in self.definitions.get(row.task, ()) if item["name"] == metric), None)
        if found is None or not {*found["numerator"], *found["denominator"]} <= row.values.keys():
            return None
        return (
            sum(weight * row.values[name] for name, weight in found["numerator"].items()),
            sum(weight * row.values[name] for name, weight in found["denominator"].items()),
        )

    def true_share(self, task: str) -> float | None:
        """Percent of a task's questions whose answer is yes, in each part that they belong to; None where the
        rows do not tell."""
        rows = self.rows.get(task, {}).get(self.after, ())
        labels = [str(row.meta.get("label")) for row in rows for _ in row.meta.get("subsets") or [""]]
        return 100 * labels.count("yes") / len(labels) if labels and set(labels) <= {"yes", "no"} else None


def whole_of(lines: Sequence[Metric]) -> Metric | None:
    """Of a metric's lines the one over everything; of several parts, their mean."""
    whole = [line for line in lines if not line.part] or [line for line in lines if line.part == "mean"]
    return (whole or list(lines) or [None])[0]


def load_results(folder: Path) -> Results:
    """Read a finished score folder.

    Raises:
        AlignError: a file is missing, or has not the fields that the score stage writes.
    """
    lines = read_lines(read_json(folder / "metrics.json"), str(folder / "metrics.json"))
    checkpoints = _checkpoints(lines[0], folder / "rows")
    cards = _json_if_any(folder / "tasks.json")
    facts = _facts(lines, cards)
    bad_rows: list[str] = []
    rows: dict[str, dict[str, list[Score]]] = {}
    for checkpoint in checkpoints:
        for path in sorted((folder / "rows" / checkpoint).glob("*.jsonl")):
            scores = read_rows(Score, path, lambda where, reason, _: bad_rows.append(f"{where}: {reason}"))
            rows.setdefault(path.stem, {})[checkpoint] = list(scores)
    health, runs = read_json(folder / "health.json"), _json_if_any(folder / "runs.json")
    return Results(
        checkpoints,
        _metrics(lines, cards, facts),
        lines,
        _health(health),
        health,
        rows,
        bad_rows,
        list(cards.values()),
        _json_if_any(folder / "notes.json"),
        read_json(folder / "pairwise.json") if (folder / "pairwise.json").is_file() else [],
        runs.get("apart", {}),
        runs.get("remarks", ()),
        read_source(folder),
        _json_if_any(folder / "definitions.json"),
        facts,
    )


def read_training_log(folder: Path) -> list[dict[str, Any]]:
    """Lines of a training stage's `train_log.jsonl`; empty when there is none."""
    path = folder / "train_log.jsonl"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def read_manifest_if_any(folder: Path) -> dict[str, Any]:
    """A stage's manifest, or nothing."""
    return _json_if_any(folder / MANIFEST)


def _json_if_any(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _checkpoints(line: MetricLine, rows: Path) -> list[str]:
    names = [name for name in line.values if (rows / name).is_dir()]
    if not names:
        raise AlignError("no checkpoint's rows", where=str(rows), fix="run `align score` again")
    return names


def _facts(lines: Sequence[MetricLine], cards: Mapping[str, Any]) -> dict[str, Facts]:
    """What the scores say of each task; of older scores, what is known of its type."""
    names: dict[str, set[str]] = {}
    for line in lines:
        names.setdefault(line.task, set()).add(line.metric)
    found = {}
    for task, metrics in names.items():
        card = cards.get(task, {})
        said = card.get("facts")
        found[task] = Facts.of_json(said) if said else known_facts(task, card.get("type", task), metrics)
    return found


def _metrics(
    lines: Sequence[MetricLine], cards: Mapping[str, Any], facts: Mapping[str, Facts]
) -> list[Metric]:
    asked = [line for line in lines if line.n and not is_unmeasured(line)]
    splits = {task: str(cards.get(task, {}).get("split") or "") for task in facts}
    return [Metric.of(line, facts[line.task], part_of(line.split, splits[line.task])) for line in asked]


def is_unmeasured(line: MetricLine) -> bool:
    """Whether a measure of captions has nothing to measure in any checkpoint: nobody said a colour."""
    return set(line.values) <= line.lacking


def _health(raw: Any) -> list[dict[str, Any]]:
    """Flat rows with `checkpoint` and `task`, whether the file is a list or nested by name."""
    if isinstance(raw, list):
        return [dict(item) for item in raw]
    return [
        {"checkpoint": checkpoint, "task": task, **counts}
        for checkpoint, tasks in raw.items()
        for task, counts in tasks.items()
    ]
