"""Several runs side by side: which tasks can be compared, and the comparison.

A task is compared when all runs were asked the same in the same way: equal data, prompt, scorer, sampling
and judge. Where the same questions were put to all, differences are paired, on the clusters that are whole
in all of them; else independent intervals are put together. What cannot be compared is said, with the reason.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

from omegaconf import OmegaConf

from align.rows.schema import Score, write_rows
from align.scoring.stats import minimum_detectable_effect
from evals.comparison.lines import compare_task, correct
from evals.comparison.metric_line import Change, MetricLine, dump_lines, steps_of
from evals.comparison.runs import Run
from evals.protocol import Aim, Metric

_PROTOCOL = {"type": "task", "prompt": "prompt", "parser": "scorer", "aggregation": "metric", "mode": "mode"}
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Recorded:
    """A task as its scores remember it; its rows hold the values of groups already."""

    name: str
    measures: Aim
    metrics: Sequence[Metric]

    def combine(self, scores: Sequence[Score], /) -> Sequence[Score]:
        """The scores as they are."""
        return scores


@dataclass(frozen=True)
class Compared:
    """What came of putting runs side by side.

    Attributes:
        metrics: lines as of `metrics.json`, a run in place of a checkpoint.
        apart: task -> why its runs cannot be compared.
        remarks: what else a reader must know of the comparison.
        rows: task -> run -> the rows that were compared.
    """

    metrics: Sequence[MetricLine]
    apart: Mapping[str, Sequence[str]]
    remarks: Sequence[str]
    rows: Mapping[str, Mapping[str, Sequence[Score]]]


def compare_runs(runs: Sequence[Run], resamples: int = 10_000, seed: int = 0) -> Compared:
    """Compare the last run with the one before, and each with the first, task by task."""
    metrics: list[MetricLine] = []
    apart: dict[str, list[str]] = {}
    remarks: list[str] = []
    kept: dict[str, dict[str, Sequence[Score]]] = {}
    for task in dict.fromkeys(line.task for run in runs for line in run.lines):
        missing = [run.name for run in runs if task not in run.cards]
        if missing:
            apart[task] = [f"{', '.join(missing)} was not asked"]
            continue
        reasons = [reason for run in runs[1:] for reason in differences(runs[0], run, task)]
        common = None if reasons else whole_in_all([run.rows.get(task, ()) for run in runs])
        if reasons:
            apart[task] = list(dict.fromkeys(reasons))
        if common is None:
            metrics += _side_by_side(runs, task, is_compared=not reasons)
            remarks += [] if reasons else [f"{task}: no questions in common, so intervals are unpaired"]
            kept[task] = {run.name: run.rows.get(task, ()) for run in runs}
            continue
        names = (run.name for run in runs)
        scores: dict[str, Sequence[Score]] = dict(zip(names, common, strict=True))
        recorded = _recorded(runs, task)
        remarks += _remark(runs, task, len(common[0]))
        if len(recorded.metrics) < max(len(run.definitions[task]) for run in runs):
            remarks.append(f"{task}: without the measures that not all of the runs have")
        seeds = [seed, zlib.crc32(task.encode())]
        metrics += compare_task(recorded, scores, resamples, seeds)
        kept[task] = scores
    correct(metrics, [run.name for run in runs])
    return Compared(metrics, apart, remarks, kept)


def differences(one: Run, other: Run, task: str) -> list[str]:
    """Why a task's numbers from two runs are not about the same thing; empty when they are."""
    found = []
    for key, name in _PROTOCOL.items():
        sides = [run.cards[task].get(key) for run in (one, other)]
        if sides[0] != sides[1]:
            found.append(f"another {name}: {_both(*sides)}")
    for name in sorted({*one.data.get(task, {}), *other.data.get(task, {})}):
        sides = [run.data.get(task, {}).get(name) for run in (one, other)]
        if sides[0] != sides[1]:
            found.append(f"other data: {name} has sha256 {_both(*(str(side)[:12] for side in sides))}")
    if one.settings and other.settings:
        found += _settings_differ(one, other, task)
    judges = [run.notes.get(task, {}).get("judge", {}) for run in (one, other)]
    for key, name in (("judge", "judge"), ("prompt_sha256", "wording for the judge")):
        sides = [", ".join(map(str, judge.get(key, []))) for judge in judges]
        if sides[0] != sides[1]:
            found.append(f"another {name}: {_both(*sides)}")
    return found


def whole_in_all(sides: Sequence[Sequence[Score]]) -> list[list[Score]] | None:
    """Each run's rows of the clusters whose samples are the same in all runs; None if there are none."""
    members = [_clusters(rows) for rows in sides]
    first, *others = members
    whole = {name for name, ids in first.items() if all(side.get(name) == ids for side in others)}
    return [[row for row in rows if row.cluster in whole] for rows in sides] if whole else None


def write_compared(folder: Path, runs: Sequence[Run], found: Compared) -> None:
    """A score folder of the comparison, for `align report`."""
    tasks = {line.task for line in found.metrics}
    for run in runs:
        rows = folder / "rows" / run.name
        rows.mkdir(parents=True, exist_ok=True)
        for task, sides in found.rows.items():
            if sides[run.name]:
                write_rows(rows / f"{task}.jsonl", sides[run.name])
    texts = {
        "metrics": dump_lines(found.metrics),
        "health": {run.name: {t: n for t, n in run.health.items() if t in tasks} for run in runs},
        "tasks": {task: card for task, card in runs[0].cards.items() if task in tasks},
        "definitions": {task: item for task, item in runs[0].definitions.items() if task in tasks},
        "notes": {run.name: run.notes for run in runs if run.notes},
        "runs": {"apart": found.apart, "remarks": found.remarks},
    }
    for name, value in texts.items():
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    answers = {run.name: str(run.answers) for run in runs if run.answers is not None}
    OmegaConf.save(OmegaConf.create({"checkpoints": answers}), folder / "recipe.yaml")


def _recorded(runs: Sequence[Run], task: str) -> Recorded:
    """The task with the metrics that every run's rows have the values of."""
    first, *others = ([dict(item) for item in run.definitions[task]] for run in runs)
    items = [item for item in first if all(_is_defined(item, other) for other in others)]
    metrics = [Metric(**{**item, "subsets": tuple(item["subsets"])}) for item in items]
    return Recorded(task, items[0]["measures"], metrics)


def _is_defined(item: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> bool:
    keys = ("name", "split", "numerator", "denominator")
    return any(all(item[key] == other[key] for key in keys) for other in others)


def _side_by_side(runs: Sequence[Run], task: str, is_compared: bool) -> list[MetricLine]:
    """The first run's lines with every run's own value; differences from independent intervals, or none."""
    lines = [{(line.metric, line.split): line for line in run.lines if line.task == task} for run in runs]
    found = []
    for key, line in lines[0].items():
        sides = {run.name: own.get(key) for run, own in zip(runs, lines, strict=True)}
        checkpoints = {run.name: run.checkpoint for run in runs}
        row = line.model_copy(
            update={
                **Change(paired=False).model_dump(),
                "values": {
                    name: None if side is None else side.values.get(checkpoints[name])
                    for name, side in sides.items()
                },
                "ci": {
                    name: side.ci[checkpoints[name]]
                    for name, side in sides.items()
                    if side is not None and checkpoints[name] in side.ci
                },
                "steps": {},
            }
        )
        if is_compared:
            _add_unpaired(row)
        found.append(row)
    return found


def _add_unpaired(row: MetricLine) -> None:
    for before, after in steps_of(row.values):
        one, two = row.values[before], row.values[after]
        if one is not None and two is not None and {before, after} <= row.ci.keys():
            row.set_change(before, after, _unpaired(one, row.ci[before], two, row.ci[after]))


def _unpaired(one: float, ends: Sequence[float], two: float, others: Sequence[float]) -> Change:
    """A difference of independent values: normal, with the errors that their 95% intervals stand for."""
    error = math.hypot(*((high - low) / (2 * _Z) for low, high in (ends, others)))
    delta = two - one
    return Change(
        delta=round(delta, 6),
        ci_low=round(delta - _Z * error, 6),
        ci_high=round(delta + _Z * error, 6),
        p=round(2 * NormalDist().cdf(-abs(delta) / error) if error else float(delta == 0), 6),
        mde=round(minimum_detectable_effect(error), 6),
        p_method="unpaired_normal",
        paired=False,
    )


def _settings_differ(one: Run, other: Run, task: str) -> list[str]:
    found = []
    sampling = [run.settings.get("sampling", {}) for run in (one, other)]
    for key in sorted({*sampling[0], *sampling[1]}):
        sides = [side.get(key) for side in sampling]
        if sides[0] != sides[1]:
            found.append(f"other sampling: {key} {_both(*sides)}")
    lengths = [run.settings.get("max_tokens", {}).get(task) for run in (one, other)]
    if lengths[0] != lengths[1] and all("max_tokens" in run.settings for run in (one, other)):
        found.append(f"another longest answer: {_both(*lengths)} tokens")
    return found


def _remark(runs: Sequence[Run], task: str, num_common: int) -> list[str]:
    sizes = [len(run.rows[task]) for run in runs]
    if set(sizes) == {num_common}:
        return []
    return [f"{task}: on the {num_common:,} answers that all runs have, of {', '.join(map(str, sizes))}"]


def _clusters(rows: Sequence[Score]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row.cluster, set()).add(row.sample_id)
    return {name: frozenset(ids) for name, ids in found.items()}


def _both(one: object, two: object) -> str:
    return f"{_short(one)} / {_short(two)}"


def _short(value: object) -> str:
    text = "none" if value in (None, "") else str(value)
    return text if len(text) <= 60 else text[:59] + "…"
