"""Score every checkpoint's answers and compare the checkpoints, with paired intervals.

Reads the folders that `align generate` wrote for the checkpoints, scores each answer in the official
and the strict way, and compares each checkpoint with the one before and with the first: paired cluster
bootstrap intervals, an exact or permutation test, Holm's correction over the primary metrics, and the
smallest difference that the data could have shown.

Writes `metrics.json` (shares in percent, `scale` says so), `health.json` (what could not be scored),
`tasks.json` (the protocols, and what a report must know of the tasks), `definitions.json` (the metrics as
ratios of sums), `notes.json` (who judged) and `rows/<checkpoint>/<task>.jsonl` (one scored answer a line).
With answers of two `rounds` or more, `rounds.json` has every metric by round, against the checkpoint before
the last.

Somebody's answers to one benchmark, in the format it is published in, without a recipe (a JSON of the paper's
metrics; `align score TASK --help` tells the formats):

  align score TASK --predictions FILE --data DIR [--mode official|strict] [--option key=value] [--json]
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from align.config.recipe import StageRecipe, nearest, read_yaml
from align.errors import AlignError, RecipeError
from align.rows.schema import Prediction, read_rows, write_rows
from align.run.folder import RunFolder
from align.run.stage import Done, run_stage
from align.serving.wire import PATIENCE_KEYS
from evals.comparison.lines import compare_task, correct
from evals.comparison.metric_line import MetricLine, dump_lines
from evals.comparison.on_screen import show_metrics, show_thoughts
from evals.comparison.preferences import PairwiseSettings, prefer, preference_rows, summarise_preferences
from evals.comparison.rounds import lines_by_round, round_name
from evals.comparison.scored import Scored, score_predictions
from evals.tasks.registry import facts_of, load_tasks, task_types
from evals.tasks.task import Task, index_samples


class Recipe(StageRecipe):
    """What to compare."""

    how_keys: ClassVar[frozenset[str]] = frozenset(f"pairwise.judge.{name}" for name in PATIENCE_KEYS)

    name: str = Field(default="score", description="the stage's folder inside run_dir")
    checkpoints: dict[str, Path] = Field(
        min_length=1,
        description="name -> folder that `align generate` wrote, in training order; each is compared with "
        "the one before and with the first, and the last step is the headline",
    )
    rounds: list[Path] = Field(
        default=[],
        description="folders that `align generate` wrote after each round of preference training, in order; "
        "two or more are compared with the checkpoint before the last",
    )
    resamples: int = Field(default=10_000, ge=100, description="bootstrap resamples, and swaps of the test")
    margin_points: float = Field(
        default=1.0,
        gt=0,
        description="loss that still counts as kept: p_not_worse below 0.025 says that no more was lost",
    )

    pairwise: PairwiseSettings | None = Field(
        default=None, description="have a judge say which of the last two checkpoints' answers it prefers"
    )

    @field_validator("checkpoints")
    @classmethod
    def _names(cls, checkpoints: dict[str, Path]) -> dict[str, Path]:
        for name in checkpoints:  # they name folders
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
                raise ValueError(f"{name!r} is no plain word: letters, digits, _ . -")
        return checkpoints

    @model_validator(mode="after")
    def _two_to_prefer(self) -> Recipe:
        if self.pairwise is not None and len(self.checkpoints) < 2:
            raise ValueError("pairwise needs two checkpoints")
        return self


def run(recipe: Recipe) -> RunFolder:
    """Score and compare; see the module."""
    rounds = {round_name(number): path for number, path in enumerate(recipe.rounds, 1)}
    tasks = read_tasks(recipe.checkpoints | rounds)
    if unknown := [name for name in (recipe.pairwise.tasks if recipe.pairwise else ()) if name not in tasks]:
        raise RecipeError(f"pairwise.tasks: no task {unknown[0]!r}{nearest(unknown[0], tasks)}")
    inputs: dict[str, str | Path] = {f"checkpoints.{name}": path for name, path in recipe.checkpoints.items()}
    inputs |= {f"rounds.{name}": path for name, path in rounds.items()}
    for task in tasks.values():
        inputs |= {f"tasks.{task.name}.{name}": path for name, path in task.inputs().items()}
    return run_stage(recipe, inputs, lambda folder: _work(recipe, tasks, folder))


def _work(recipe: Recipe, tasks: Mapping[str, Task], folder: RunFolder) -> Done:
    scored = {name: score_folder(tasks, path) for name, path in recipe.checkpoints.items()}
    write_scores(folder.work, scored)
    metrics = compare_checkpoints(tasks, scored, recipe.resamples, recipe.seed, recipe.margin_points)
    _write_json(folder.work / "metrics.json", dump_lines(metrics))
    write_about(folder.work, tasks, scored)
    if len(recipe.rounds) > 1 and len(recipe.checkpoints) > 1:
        write_rounds(folder.work, recipe, tasks, scored)
    if recipe.pairwise is not None:
        write_preferences(folder, recipe, recipe.pairwise, tasks, scored)
    show_metrics(metrics, list(recipe.checkpoints))
    show_thoughts(scored)
    headline = {
        f"{row.task}/{row.split}/{row.metric}": row.values[list(recipe.checkpoints)[-1]]
        for row in metrics
        if row.primary
    }
    return Done(headline, "align report, with this folder as its scores")


def direct(words: Sequence[str]) -> int | None:
    """`align score TASK --predictions FILE ...`; None where the words name a recipe."""
    first = words[0] if words else ""
    if first not in task_types() and "--predictions" not in words:
        return None
    from evals.score_file import main

    return main(words)


def read_tasks(checkpoints: Mapping[str, Path]) -> dict[str, Task]:
    """The tasks that all checkpoints answered.

    Raises:
        AlignError: a folder is not `align generate`'s, or the checkpoints answered different tasks.
    """
    sections: dict[str, Any] = {}
    for name, folder in checkpoints.items():
        path = folder / "recipe.yaml"
        if not path.is_file() or not (folder / "predictions.jsonl").is_file():
            raise RecipeError(
                f"checkpoints.{name} = {folder}: not a finished folder of `align generate`",
                fix="run `align generate` for this checkpoint first",
            )
        sections[name] = read_yaml(path).get("tasks")
    first, *others = sections
    for name in others:
        if sections[name] != sections[first]:
            differ = sorted(
                key
                for key in {*(sections[name] or {}), *(sections[first] or {})}
                if (sections[name] or {}).get(key) != (sections[first] or {}).get(key)
            )
            raise AlignError(
                f"checkpoints {first!r} and {name!r} answered different tasks: {', '.join(differ)}",
                where=str(checkpoints[name] / "recipe.yaml"),
                fix="generate both with the same tasks section",
            )
    return load_tasks(sections[first] or {}, where=f"{checkpoints[first]}/recipe.yaml: tasks")


def score_folder(tasks: Mapping[str, Task], folder: Path) -> dict[str, Scored]:
    """Score one checkpoint's `predictions.jsonl`."""
    by_task: dict[str, list[Prediction]] = {name: [] for name in tasks}
    for prediction in read_rows(Prediction, folder / "predictions.jsonl"):
        if prediction.task not in by_task:
            raise AlignError(f"a prediction for the unknown task {prediction.task!r}", where=str(folder))
        by_task[prediction.task].append(prediction)
    return {
        name: score_predictions(task, by_task[name], where=f"{folder}/predictions.jsonl")
        for name, task in tasks.items()
    }


def compare_checkpoints(
    tasks: Mapping[str, Task],
    scored: Mapping[str, Mapping[str, Scored]],
    resamples: int,
    seed: int,
    margin_points: float = 1.0,
) -> list[MetricLine]:
    """The lines of `metrics.json`, tasks in the recipe's order, Holm's correction over all primary lines."""
    rows: list[MetricLine] = []
    for name, task in tasks.items():
        scores = {checkpoint: parts[name].scores for checkpoint, parts in scored.items()}
        rows += compare_task(task, scores, resamples, [seed, zlib.crc32(name.encode())], margin_points)
    correct(rows, list(scored))
    return rows


def write_about(folder: Path, tasks: Mapping[str, Task], scored: Mapping[str, Mapping[str, Scored]]) -> None:
    """What a reader of the numbers must know: health, protocols, the metrics' definitions, notes."""
    health = {
        name: {task: part.health.to_json() for task, part in found.items()} for name, found in scored.items()
    }
    notes = {
        name: {task: part.notes for task, part in found.items() if part.notes}
        for name, found in scored.items()
    }
    definitions = {
        name: [asdict(metric) | {"measures": metric.measures or task.measures} for metric in task.metrics]
        for name, task in tasks.items()
    }
    cards = {name: task.card.to_json() | {"facts": facts_of(task).to_json()} for name, task in tasks.items()}
    _write_json(folder / "health.json", health)
    _write_json(folder / "tasks.json", cards)
    _write_json(folder / "definitions.json", definitions)
    _write_json(folder / "notes.json", {name: found for name, found in notes.items() if found})


def write_preferences(
    folder: RunFolder,
    recipe: Recipe,
    settings: PairwiseSettings,
    tasks: Mapping[str, Task],
    scored: Mapping[str, Mapping[str, Scored]],
) -> None:
    """Ask the judge which of the last two checkpoints' answers it prefers; writes `pairwise.json`, a line a
    task, and `pairwise/<task>.jsonl`, a line a pair."""
    before, after = list(scored)[-2:]
    store = settings.judge.store or recipe.run_dir / "answers" / "pairwise.jsonl"
    settings = settings.model_copy(update={"judge": settings.judge.model_copy(update={"store": store})})
    lines = []
    for name in settings.tasks:
        samples = index_samples(tasks[name].samples())
        sides = [scored[checkpoint][name].scores for checkpoint in (before, after)]
        found, judged = prefer(settings, samples, *sides)
        about = {"task": name, "before": before, "after": after}
        seed = [recipe.seed, zlib.crc32(name.encode())]
        lines.append({**about, **summarise_preferences(found, judged, recipe.resamples, seed)})
        path = folder.work / "pairwise" / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        rows = (json.dumps(row, ensure_ascii=False) for row in preference_rows(found, judged))
        path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8", errors="replace")
    _write_json(folder.work / "pairwise.json", lines)


def write_rounds(
    folder: Path, recipe: Recipe, tasks: Mapping[str, Task], scored: Mapping[str, Mapping[str, Scored]]
) -> None:
    """Score the answers after each round, those of a checkpoint not again, and write `rounds.json`."""
    known = {path: scored[name] for name, path in recipe.checkpoints.items()}
    start = list(recipe.checkpoints)[-2]
    path = {start: scored[start]}
    for number, answers in enumerate(recipe.rounds, 1):
        path[round_name(number)] = known.get(answers) or score_folder(tasks, answers)
    rows = compare_checkpoints(tasks, path, recipe.resamples, recipe.seed, recipe.margin_points)
    _write_json(folder / "rounds.json", lines_by_round(rows, start, len(recipe.rounds)))


def write_scores(folder: Path, scored: Mapping[str, Mapping[str, Scored]]) -> None:
    """`rows/<checkpoint>/<task>.jsonl` under `folder`."""
    for checkpoint, parts in scored.items():
        for task, part in parts.items():
            path = folder / "rows" / checkpoint / f"{task}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_rows(path, part.scores)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
