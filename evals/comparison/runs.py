"""Finished runs, read again to be put side by side: their scores, or what a report kept of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.config.recipe import nearest, read_yaml
from align.digest import MANIFEST
from align.errors import AlignError
from align.objects.coco import read_json
from align.rows.schema import Score, read_rows
from evals.comparison.metric_line import MetricLine, read_lines

_OURS = ("score", "report", "report.json")
_FIX = "name a folder that `align run`, `align eval`, `align score` or `align report` wrote"


@dataclass(frozen=True)
class Run:
    """One checkpoint of one run.

    Attributes:
        name: for tables; letters, digits, `.`, `_` and `-`.
        lines: of `metrics.json`, with the values of all of the run's checkpoints.
        definitions: task -> its metrics as ratios of sums; empty where only a report is left.
        rows: task -> scored samples; likewise.
        data: task -> name of a data file -> its sha256.
        settings: what was asked for beside the protocol: sampling, and each task's longest answer.
        answers: folder of its predictions; None where it is not known.
    """

    name: str
    checkpoint: str
    lines: Sequence[MetricLine]
    health: Mapping[str, Any]
    cards: Mapping[str, Mapping[str, Any]]
    notes: Mapping[str, Any]
    data: Mapping[str, Mapping[str, str]]
    settings: Mapping[str, Any]
    definitions: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    rows: Mapping[str, Sequence[Score]] = field(default_factory=dict)
    answers: Path | None = None


def read_runs(words: Sequence[str]) -> list[Run]:
    """The runs of a command line: `runs/a`, or `runs/a@sft` for another checkpoint than the last.

    Raises:
        AlignError: no scores there, or no such checkpoint.
    """
    runs = [_read_run(*_split(word)) for word in words]
    names = _names([_split(word) for word in words])
    return [Run(**{**vars(run), "name": name}) for run, name in zip(runs, names, strict=True)]


def _split(word: str) -> tuple[Path, str | None]:
    path, at, checkpoint = word.rpartition("@")
    return (Path(path), checkpoint) if at and not Path(word).exists() else (Path(word), None)


def _read_run(folder: Path, checkpoint: str | None) -> Run:
    scores = _find_scores(folder)
    return _read_report(scores, checkpoint) if scores.is_file() else _read_scores(scores, checkpoint)


def _find_scores(folder: Path) -> Path:
    """The score folder that a folder stands for, or a `report.json` where the scores are gone."""
    if not folder.exists():
        raise AlignError(f"no such run: {folder}", fix=_FIX)
    if folder.is_file():
        return folder
    recipe = folder / "recipe.yaml"
    named = read_yaml(recipe).get("scores") if recipe.is_file() else None
    places = [folder, folder / "score", *([Path(named)] if named else [])]
    found = next((place for place in places if (place / "definitions.json").is_file()), None)
    reports = [folder / "report.json", folder / "report" / "report.json"]
    found = found or next((path for path in reports if path.is_file()), None)
    if found is None:
        raise AlignError(f"no scores in {folder}", fix=_FIX)
    return found


def _read_scores(folder: Path, checkpoint: str | None) -> Run:
    lines = read_lines(read_json(folder / "metrics.json"), str(folder / "metrics.json"))
    health = read_json(folder / "health.json")
    chosen = _choose(list(health), checkpoint, folder)
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    recipe = read_yaml(folder / "recipe.yaml") if (folder / "recipe.yaml").is_file() else {}
    answers = (recipe.get("checkpoints") or {}).get(chosen)
    rows = folder / "rows" / chosen
    return Run(
        name="",
        checkpoint=chosen,
        lines=lines,
        health=health[chosen],
        cards=read_json(folder / "tasks.json"),
        notes=read_json(folder / "notes.json").get(chosen, {}),
        data=_data(manifest.get("inputs") or {}),
        settings=_settings(Path(answers)) if answers else {},
        definitions=read_json(folder / "definitions.json"),
        rows={path.stem: list(read_rows(Score, path)) for path in sorted(rows.glob("*.jsonl"))},
        answers=Path(answers) if answers else None,
    )


def _read_report(path: Path, checkpoint: str | None) -> Run:
    report = read_json(path)
    try:
        chosen = _choose(report["checkpoints"], checkpoint, path)
        record = report["provenance"]
        inputs = next((stage["inputs"] for stage in record["stages"] if stage["stage"] == "score"), {})
        return Run(
            name="",
            checkpoint=chosen,
            lines=read_lines(report["metrics"], str(path)),
            health=report["health"][chosen],
            cards={card["task"]: card for card in record["tasks"]},
            notes=record.get("judges", {}).get(chosen, {}),
            data=_data({name: {"digest": digest} for name, digest in inputs.items()}),
            settings={"sampling": record.get("sampling") or {}},
        )
    except (LookupError, TypeError) as error:
        raise AlignError(f"not a report of `align report`: {error}", where=str(path), fix=_FIX) from error


def _choose(names: Sequence[str], checkpoint: str | None, where: Path) -> str:
    if checkpoint is not None and checkpoint not in names:
        raise AlignError(f"no checkpoint {checkpoint!r}{nearest(checkpoint, names)}", where=str(where))
    return checkpoint or names[-1]


def _data(inputs: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Digests of a score stage's inputs `tasks.<task>.<file>`, by task."""
    found: dict[str, dict[str, str]] = {}
    for name, record in inputs.items():
        parts = name.split(".", 2)
        if parts[0] == "tasks" and len(parts) == 3:
            found.setdefault(parts[1], {})[parts[2]] = str(record["digest"])
    return found


def _settings(answers: Path) -> dict[str, Any]:
    """What `align generate` was told, as far as it bears on the answers."""
    path = answers / "recipe.yaml"
    if not path.is_file():
        return {}
    recipe = read_yaml(path)
    lengths = {name: task.get("max_tokens") for name, task in (recipe.get("tasks") or {}).items()}
    return {"sampling": recipe.get("sampling") or {}, "max_tokens": lengths}


def _names(places: Sequence[tuple[Path, str | None]]) -> list[str]:
    """Short names: the run's folder, with the ones above where that is not enough, and a named checkpoint."""
    plain = [[part for part in path.resolve().parts if part not in _OURS] for path, _ in places]
    for depth in range(1, max(map(len, plain)) + 1):
        names = [
            "-".join([*parts[-depth:], *([checkpoint] if checkpoint else [])])
            for parts, (_, checkpoint) in zip(plain, places, strict=True)
        ]
        names = [re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-._") or "run" for name in names]
        if len(set(names)) == len(names):
            return names
    raise AlignError("the same run twice", fix="name two checkpoints of it: runs/a@sft runs/a@dpo")
