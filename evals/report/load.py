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
from align.schema import Score, read_rows
from evals.report.source import Source, read_json, read_source

_REQUIRED = (
    "task",
    "metric",
    "split",
    "higher_is_better",
    "delta",
    "ci_low",
    "ci_high",
    "p",
    "n",
    "clusters",
)
_STRICT = "_strict"
_LABELS = {
    "chair_i": "CHAIRi", "chair_s": "CHAIRs", "recall": "Recall", "accuracy": "Accuracy", "f1": "F1",
    "precision": "Precision", "yes_ratio": "Yes ratio", "words": "Words per caption",
}  # fmt: skip
_TYPES = {"pope": "POPE", "chair": "CHAIR", "vqa": "VQA"}
# Splits that every quickstart table has; naming them says nothing.
_PLAIN_SPLITS = ("", "all", "test")


@dataclass(frozen=True)
class Metric:
    """One line of the results. Shares are in percent and their differences in percentage points.

    Attributes:
        type: the kind of task (`chair`, `pope`, `vqa`); `task` is its name in the recipe.
        part: what part of the task's split the line is about: POPE's variant, VQA's kind; empty for all.
        base_name: the metric's name without the mark of the strict scorer.
        is_key: primary, or the recall without which CHAIR means little.
        is_share: whether values are percentages; otherwise plain numbers.
        values: checkpoint -> value, in the order of the checkpoints.
        delta: last checkpoint minus the one before, with its paired 95% interval.
        first_step: the same for the step before that (base to SFT), where the scores have it.
    """

    task: str
    type: str
    metric: str
    split: str
    part: str
    mode: str
    is_share: bool
    higher_is_better: bool | None
    primary: bool
    is_key: bool
    values: Mapping[str, float | None]
    delta: float | None
    ci_low: float | None
    ci_high: float | None
    p: float | None
    p_holm: float | None
    mde: float | None
    n: int
    clusters: int
    first_step: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def base_name(self) -> str:
        """See the class."""
        return self.metric.removesuffix(_STRICT)

    @property
    def label(self) -> str:
        """The metric's name as papers write it."""
        return _LABELS.get(self.base_name, self.base_name.replace("_", " "))

    @property
    def task_label(self) -> str:
        """The task's name as papers write it, with the part."""
        return f"{task_label(self.task, self.type)} {self.part}".strip()

    @property
    def gain(self) -> float | None:
        """The difference in the better direction, None where neither is better."""
        if self.delta is None or self.higher_is_better is None:
            return None
        return self.delta if self.higher_is_better else -self.delta

    @property
    def effect(self) -> str:
        """`better`, `worse` or, where neither is, `changed`; `unclear` when the interval has zero."""
        if self.ci_low is None or self.ci_high is None or self.ci_low <= 0 <= self.ci_high:
            return "unclear"
        if self.higher_is_better is None:
            return "changed"
        return "better" if (self.ci_low > 0) == self.higher_is_better else "worse"


@dataclass(frozen=True)
class Results:
    """Everything that the page shows, read and checked.

    Attributes:
        checkpoints: names in training order; the last is compared with the one before.
        rows: task -> checkpoint -> scored samples in file order.
        bad_rows: rows that could not be read, as `where: reason`.
        cards: the tasks' protocols.
        raw_metrics: the lines of `metrics.json` as they are.
    """

    checkpoints: Sequence[str]
    metrics: Sequence[Metric]
    raw_metrics: Sequence[Mapping[str, Any]]
    health: Sequence[Mapping[str, Any]]
    raw_health: Any
    rows: Mapping[str, Mapping[str, Sequence[Score]]]
    bad_rows: Sequence[str]
    cards: Sequence[Mapping[str, Any]] = ()
    source: Source = field(default_factory=Source)

    @cached_property
    def index(self) -> Mapping[tuple[str, str], Mapping[str, Score]]:
        """(task, checkpoint) -> sample id -> row."""
        return {
            (task, name): {row.sample_id: row for row in rows}
            for task, sides in self.rows.items()
            for name, rows in sides.items()
        }

    @property
    def before(self) -> str:
        """The checkpoint before the last."""
        return self.checkpoints[-2]

    @property
    def after(self) -> str:
        """The last checkpoint."""
        return self.checkpoints[-1]

    def main_task(self, kind: str) -> str | None:
        """The first task of that type, by the order of the recipe."""
        return next((line.task for line in self.metrics if line.type == kind), None)

    def lines(self, kind: str, name: str) -> list[Metric]:
        """The lines of a metric of the main task of that type, as its primary scorer sees it."""
        task = self.main_task(kind)
        found = [line for line in self.metrics if line.task == task and line.base_name == name]
        return [line for line in found if line.mode == found[0].mode]

    def find(self, kind: str, name: str) -> Metric | None:
        """The metric over all of the main task; of several parts, their mean."""
        lines = self.lines(kind, name)
        whole = [line for line in lines if not line.part] or [line for line in lines if line.part == "mean"]
        return (whole or lines or [None])[0]

    def mode_of(self, task: str) -> str:
        """The task's primary scorer: `official` or `strict`."""
        return next((line.mode for line in self.metrics if line.task == task), "official")


def part_of(split: str, whole: str) -> str:
    """`test/how many` is the part `how many` of the split `test`."""
    part = split.removeprefix(whole).removeprefix("/") if whole else split
    return "" if part in _PLAIN_SPLITS else part.rsplit("/", 1)[-1].replace("_", " ")


def task_label(task: str, kind: str) -> str:
    """`CHAIR` for the task `chair`, `CHAIR unseen` for `chair_unseen`, other names as they are."""
    rest = task.removeprefix(kind)
    if kind not in _TYPES or rest == task or (rest and not rest.startswith(("_", "-"))):
        return task
    return f"{_TYPES[kind]} {rest[1:].replace('_', ' ')}".strip()


def shown_name(checkpoint: str) -> str:
    """SFT and DPO in capitals, other names as they are."""
    return checkpoint.upper() if checkpoint.lower() in ("sft", "dpo", "orpo", "kto") else checkpoint


def load_results(folder: Path) -> Results:
    """Read a finished score folder.

    Raises:
        AlignError: a file is missing, or has not the fields that the score stage writes.
    """
    raw = read_json(folder / "metrics.json")
    if not isinstance(raw, list) or not raw:
        raise AlignError("no metrics", where=str(folder / "metrics.json"), fix="run `align score` again")
    checkpoints = _checkpoints(raw[0], folder / "rows")
    cards = read_json(folder / "tasks.json") if (folder / "tasks.json").is_file() else {}
    metrics = [
        _metric(item, cards.get(item.get("task"), {}), checkpoints, f"{folder / 'metrics.json'} item {index}")
        for index, item in enumerate(raw)
    ]
    bad_rows: list[str] = []
    rows: dict[str, dict[str, list[Score]]] = {}
    for checkpoint in checkpoints:
        for path in sorted((folder / "rows" / checkpoint).glob("*.jsonl")):
            scores = read_rows(Score, path, lambda where, reason, _: bad_rows.append(f"{where}: {reason}"))
            rows.setdefault(path.stem, {})[checkpoint] = list(scores)
    health = read_json(folder / "health.json")
    return Results(
        checkpoints,
        metrics,
        raw,
        _health(health),
        health,
        rows,
        bad_rows,
        list(cards.values()),
        read_source(folder),
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
    path = folder / MANIFEST
    return read_json(path) if path.is_file() else {}


def _checkpoints(item: Mapping[str, Any], rows: Path) -> list[str]:
    names = [name for name in item if (rows / name).is_dir()]
    if len(names) < 2:
        raise AlignError(
            f"a comparison needs two checkpoints or more, found {names or 'none'}",
            where=str(rows),
            fix="score at least two checkpoints together",
        )
    return names


def _metric(
    item: Mapping[str, Any], card: Mapping[str, Any], checkpoints: Sequence[str], where: str
) -> Metric:
    missing = [key for key in (*_REQUIRED, *checkpoints) if key not in item]
    if missing:
        raise AlignError(f"metrics lack {', '.join(missing)}", where=where, fix="run `align score` again")
    primary, kind = bool(item.get("primary")), str(card.get("type", item["task"]))
    is_recall = kind == "chair" and item["metric"].removesuffix(_STRICT) == "recall"
    step = item.get(f"{checkpoints[-3]}_to_{checkpoints[-2]}") if len(checkpoints) > 2 else None
    return Metric(
        task=item["task"],
        type=kind,
        is_share=item.get("scale", 100) == 100,
        metric=item["metric"],
        split=item["split"] or "",
        part=part_of(item["split"] or "", str(card.get("split") or "")),
        mode=item.get("mode") or "",
        higher_is_better=item["higher_is_better"],
        primary=primary,
        is_key=primary or (is_recall and item.get("mode") == card.get("mode", "official")),
        values={name: item[name] for name in checkpoints},
        delta=item["delta"],
        ci_low=item["ci_low"],
        ci_high=item["ci_high"],
        p=item["p"],
        p_holm=item.get("p_holm"),
        mde=item.get("mde"),
        n=item["n"],
        clusters=item["clusters"],
        first_step=step or {},
    )


def _health(raw: Any) -> list[dict[str, Any]]:
    """Flat rows with `checkpoint` and `task`, whether the file is a list or nested by name."""
    if isinstance(raw, list):
        return [dict(item) for item in raw]
    return [
        {"checkpoint": checkpoint, "task": task, **counts}
        for checkpoint, tasks in raw.items()
        for task, counts in tasks.items()
    ]
