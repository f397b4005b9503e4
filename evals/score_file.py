"""Score one file of answers to a published benchmark: `align score TASK --predictions FILE --data DIR`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from align.config.recipe import nearest
from align.errors import AlignError, RecipeError
from align.progress import say
from align.rows.schema import Prediction, Score
from evals.comparison.lines import compare_task
from evals.comparison.scored import score_predictions
from evals.protocol import Metric, Mode
from evals.tasks.registry import config_class, load_tasks, task_class, task_types
from evals.tasks.task import Task

_EXAMPLE = "align score pope --predictions answers.jsonl --data data/pope"


@dataclass(frozen=True)
class FileScore:
    """What one file of answers is worth.

    Attributes:
        metrics: the paper's names -> values; shares in percent.
        splits: the same for each part of the benchmark, where it has several.
        health: counts: questions `answered` and those `missing` from the file, answers to `unknown`
            questions, and of the answers the `empty`, `failed` (null) and `unparsed` ones; `repeated` rows
            say again what an earlier one said, and count once. Where answers had `thoughts`, how many, and
            how many of those were `unclosed`, and so truncated.
        undefined: metrics without a denominator, which count as 0.
        notes: such as who judged.
    """

    task: str
    mode: Mode
    metrics: dict[str, float]
    splits: dict[str, dict[str, float]]
    health: dict[str, Any]
    undefined: list[str]
    card: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Metrics at the top by their names, everything else beside them."""
        about = asdict(self)
        return {"task": about.pop("task"), "mode": about.pop("mode"), **about.pop("metrics"), **about}


def main(words: Sequence[str]) -> int:
    """The command; returns the exit code.

    Raises:
        AlignError: an unknown task or option, data or answers that cannot be read.
    """
    options = _parse(words)
    with redirect_stdout(sys.stderr):  # what is said on the way must not stand before the JSON
        task = open_task(options.task, options.data, options.option, options.mode)
        score = score_file(task, options.predictions, options.mode)
    for line in _warnings(score):
        print(f"note: {line}", file=sys.stderr)
    say(json.dumps(score.to_json(), indent=1, ensure_ascii=False) if options.json else _table(score))
    return 0


def open_task(kind: str, data: Path | None, options: Sequence[str] = (), mode: Mode = "official") -> Task:
    """The task of a type over the published files in `data`; `options` are `key=value` of its configuration.

    Raises:
        RecipeError: an unknown task, a wrong option, or a file that the task needs and nobody named.
    """
    if kind not in task_types():
        raise RecipeError(
            f"unknown task {kind!r}{nearest(kind, task_types())}", fix=f"for example: {_EXAMPLE}"
        )
    if data is not None and not data.exists():
        raise RecipeError(f"no such file or folder: {data}", where="--data")
    for text in options:
        if "=" not in text.strip("="):
            raise RecipeError(f"not an option: {text!r}", where="--option", fix="write --option key=value")
    given = OmegaConf.to_container(OmegaConf.from_dotlist(list(options)), resolve=True)
    assert isinstance(given, dict)
    root = data if data is not None and data.is_dir() else Path(".")
    found = task_class(kind).locate(data) if data is not None else {}
    name = str(given.pop("name", kind))
    found = {key: value for key, value in found.items() if key not in given}
    section = {"type": kind, "image_root": root, "primary_mode": mode, **found, **given}
    try:
        return load_tasks({name: section}, where="option")[name]
    except RecipeError as error:
        known = config_class(kind).model_fields
        raise RecipeError(
            error.what,
            where=f"align score {kind}",
            fix="name the benchmark's folder with --data, or single files with --option key=value; keys: "
            + ", ".join(sorted(known)),
        ) from error


def score_file(task: Task, predictions: Path, mode: Mode = "official") -> FileScore:
    """Score a file of answers.

    Raises:
        AlignError: the file has another format than the task reads, two different answers to one question, or
            no answer to any of the benchmark's questions.
    """
    expected, answers, told = task.read_answers(predictions)
    answered = {answer.sample_id for answer in answers}
    samples = [sample for sample in expected if sample.id in answered]
    known = {sample.id for sample in samples}
    joined = [answer for answer in answers if answer.sample_id in known]
    kept = _once(joined, predictions)
    if not kept:
        raise AlignError(
            f"none of the {len(answers)} answers belongs to a question of {task.type} "
            f"(such as {answers[0].sample_id!r})",
            where=str(predictions),
            fix="check that --data has the same questions",
        )
    scored = score_predictions(task, kept, where=str(predictions), samples=samples, told=told)
    metrics, splits, undefined = values(task, scored.scores, mode)
    counts = {key: count for key, count in scored.health.to_json().items() if key not in ("n", "truncated")}
    health = {"answered": len(kept) - counts["failed"], "unknown": len(answers) - len(joined), **counts}
    if len(joined) > len(kept):
        health["repeated"] = len(joined) - len(kept)
    if task.all_expected:
        health = {"missing": len(expected) - len(kept), **health}
    card = task.card_of({subset for sample in expected for subset in sample.subsets})
    return FileScore(task.type, mode, metrics, splits, health, undefined, card.to_json(), task.notes())


def _once(answers: Sequence[Prediction], path: Path) -> list[Prediction]:
    """The answers without those that stand there again.

    Raises:
        AlignError: two different answers to one question; a scorer would take either.
    """
    found: dict[str, Prediction] = {}
    for answer in answers:
        earlier = found.setdefault(answer.sample_id, answer)
        if earlier.text != answer.text:
            raise AlignError(
                f"two different answers to {answer.sample_id!r}: {str(earlier.text)[:60]!r} and "
                f"{str(answer.text)[:60]!r}",
                where=str(path),
                fix="leave one answer a question in the file",
            )
    return list(found.values())


def values(
    task: Task, scores: Sequence[Score], mode: Mode
) -> tuple[dict[str, float], dict[str, dict[str, float]], list[str]]:
    """Metrics by the papers' names, as that mode's scorer sees them.

    Returns:
        over the whole benchmark (of several parts, their mean); split -> the same, empty where there is
        only one; names of metrics without a denominator.
    """
    parts = {subset for score in scores for subset in score.meta["subsets"]}
    metrics_asked = task.metrics_of(parts)
    lines = compare_task(task, {"value": scores}, resamples=100, seed=[0], metrics=metrics_asked)
    splits: dict[str, dict[str, float]] = {}
    whole: dict[str, tuple[int, float]] = {}
    undefined: list[str] = []
    for metric, line in zip(metrics_asked, lines, strict=True):
        name = metric.name.removesuffix("_strict")
        if line.lacking:
            continue  # such as colours, where nobody said one
        if metric.mode != mode and any(_is_other_mode(metric, other) for other in metrics_asked):
            continue
        splits.setdefault(metric.split, {})[name] = line.values["value"] or 0.0
        if _breadth(metric) < whole.get(name, (9, 0.0))[0]:
            whole[name] = (_breadth(metric), splits[metric.split][name])
        if line.undefined:
            undefined.append(f"{metric.split}/{name}")
    metrics = {name: value for name, (_, value) in whole.items()}
    if mode == "official":
        for split, numbers in task.published(scores).items():
            (splits.setdefault(split, {}) if split else metrics).update(numbers)
    return metrics, splits if len(splits) > 1 else {}, undefined


def _is_other_mode(metric: Metric, other: Metric) -> bool:
    """Whether `other` is the same number by the other mode's scorer."""
    same = metric.name.removesuffix("_strict") == other.name.removesuffix("_strict")
    return same and metric.split == other.split and metric.mode != other.mode


def _breadth(metric: Metric) -> int:
    """0 for a metric over everything, 1 for a mean over parts, 2 for a part."""
    return 0 if not metric.subsets else 1 if len(metric.subsets) > 1 else 2


def _warnings(score: FileScore) -> list[str]:
    health = score.health
    texts = {
        "missing": "questions have no answer in this file; the metrics are over the others",
        "unknown": "answers belong to no question of this data and were left out",
        "failed": "answers are null and were not scored",
        "repeated": "rows say again what an earlier row said and count once",
        "thoughts": "answers had thoughts before them, which were not scored",
        "unclosed": "of these were cut off in their thoughts: no answer, truncated",
    }
    found = [f"{health[key]} {text}" for key, text in texts.items() if health.get(key)]
    if score.undefined:
        found.append(f"without a denominator, shown as 0: {', '.join(score.undefined)}")
    return found


def _table(score: FileScore) -> str:
    """The metrics as aligned text, a line a split."""
    rows = {"": score.metrics, **score.splits} if score.splits else {"": score.metrics}
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    cells = [[score.task, *names]]
    for split, row in rows.items():
        cells.append([split or score.mode, *(f"{row[name]:.2f}" if name in row else "" for name in names)])
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    table = [
        "  ".join(
            cell.rjust(width) if k else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    counts = ", ".join(f"{key} {value}" for key, value in score.health.items())
    return "\n".join([*table, counts])


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="align score",
        description="Score somebody's answers to a benchmark. Rule-scored tasks need no GPU and no server.",
        epilog=_formats(words[0] if words else ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", help="one of: " + ", ".join(task_types()))
    parser.add_argument("--predictions", type=Path, required=True, metavar="FILE", help="the answers")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the benchmark's files, as published")
    parser.add_argument("--mode", choices=["official", "strict"], default="official", help="the scorer")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="a key of the task"
    )
    parser.add_argument("--json", action="store_true", help="print JSON; shares are in percent")
    return parser.parse_args(list(words))


def _formats(kind: str) -> str:
    """What a task's `--predictions` may be, and its options."""
    if kind not in task_types():
        return "`align score TASK --help` tells the answer files and options of a task"
    options = "\n".join(
        f"  {name}: {field.description}"
        for name, field in config_class(kind).model_fields.items()
        if field.description
    )
    return f"answer files:\n  {task_class(kind).answer_format}\noptions:\n{options}"
