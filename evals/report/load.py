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

_REQUIRED = ("task", "metric", "split", "higher_is_better", "delta", "ci_low", "ci_high", "p", "n", "clusters")
# Metrics that are counts of words and the like; all others are shares between 0 and 1.
_NOT_SHARES = ("words", "mean_words", "tokens", "length", "mentions_per_caption")
_LABELS = {
    "chair_i": "CHAIRi", "chair_s": "CHAIRs", "recall": "Recall", "accuracy": "Accuracy", "f1": "F1",
    "precision": "Precision", "yes_ratio": "Yes ratio", "mean_words": "Words per answer", "words": "Words per answer",
}  # fmt: skip
_TASKS = {"pope": "POPE", "chair": "CHAIR", "vqa": "VQA"}


@dataclass(frozen=True)
class Metric:
    """One line of the results. Shares are in percent and their differences in percentage points.

    Attributes:
        values: checkpoint -> value, in the order of the checkpoints.
        delta: last checkpoint minus the one before, with its paired 95% interval.
        first_step: the same for the step before that (base to SFT), where the scores have it.
    """

    task: str
    metric: str
    split: str
    mode: str
    higher_is_better: bool | None
    primary: bool
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
    def is_share(self) -> bool:
        return is_share(self.metric)

    @property
    def label(self) -> str:
        """The metric's name as papers write it."""
        return _LABELS.get(self.metric, self.metric.replace("_", " "))

    @property
    def task_label(self) -> str:
        """The task's name as papers write it, with the split."""
        return task_label(self.task, self.split)

    @property
    def gain(self) -> float | None:
        """The difference in the better direction, None where neither is better."""
        if self.delta is None or self.higher_is_better is None:
            return None
        return self.delta if self.higher_is_better else -self.delta

    @property
    def effect(self) -> str:
        """`better`, `worse` (`changed` where neither is better) or `unclear`, by whether the 95% interval leaves zero out."""
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
    source: Mapping[str, Any] = field(default_factory=dict)
    image_roots: Mapping[str, Path] = field(default_factory=dict)

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
        return self.checkpoints[-2]

    @property
    def after(self) -> str:
        return self.checkpoints[-1]

    def find(self, metric: str, task: str, split: str | None = None) -> Metric | None:
        """The first line of that task (and split), primary ones first."""
        found = [line for line in self.metrics if line.metric == metric and line.task == task]
        found = [line for line in found if split is None or line.split == split]
        return min(found, key=lambda line: not line.primary, default=None)


def is_share(metric: str) -> bool:
    """Whether the metric is a share, shown in percent."""
    return metric not in _NOT_SHARES


def task_label(task: str, split: str = "") -> str:
    """`POPE adversarial`; a split that says nothing is left out."""
    name = _TASKS.get(task, task)
    return name if split in ("", "all", "test", "overall") else f"{name} {split.replace('_', ' ')}"


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
    metrics = [_metric(item, checkpoints, f"{folder / 'metrics.json'} item {index}") for index, item in enumerate(raw)]
    bad_rows: list[str] = []
    rows: dict[str, dict[str, list[Score]]] = {}
    for checkpoint in checkpoints:
        for path in sorted((folder / "rows" / checkpoint).glob("*.jsonl")):
            scores = read_rows(Score, path, lambda where, reason, _: bad_rows.append(f"{where}: {reason}"))
            rows.setdefault(path.stem, {})[checkpoint] = list(scores)
    health = read_json(folder / "health.json")
    return Results(checkpoints, metrics, raw, _health(health), health, rows, bad_rows)


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        AlignError: missing, or not JSON.
    """
    if not path.is_file():
        raise AlignError(f"no such file: {path}", fix="check the path, or run the stage that writes it")
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except json.JSONDecodeError as error:
        raise AlignError(f"not JSON: {error}", where=str(path)) from error


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


def _metric(item: Mapping[str, Any], checkpoints: Sequence[str], where: str) -> Metric:
    missing = [key for key in (*_REQUIRED, *checkpoints) if key not in item]
    if missing:
        raise AlignError(f"metrics lack {', '.join(missing)}", where=where, fix="run `align score` again")
    return Metric(
        task=item["task"],
        metric=item["metric"],
        split=item["split"] or "",
        mode=item.get("mode") or "",
        higher_is_better=item["higher_is_better"],
        primary=bool(item.get("primary")),
        values={name: item[name] for name in checkpoints},
        delta=item["delta"],
        ci_low=item["ci_low"],
        ci_high=item["ci_high"],
        p=item["p"],
        p_holm=item.get("p_holm"),
        mde=item.get("mde"),
        n=item["n"],
        clusters=item["clusters"],
        first_step=item.get("base_to_sft") or {},
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
