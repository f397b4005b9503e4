"""What changed most that nobody asked for: over all measures, and over the words of the descriptions.

Alignment aims at one thing, and whatever is not measured is free to drift. So all measures that were not
aimed at are ranked by their standardised change, z = difference / its paired standard error (by cluster), and
so are words and phrases (`evals.report.ngrams`). Only changes beyond chance are told: p corrected by Holm,
measures and phrases each over all that were tested. Aimed at are the primary measures of invention and
probing, in every scorer, and the same inventions counted once an object.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.rows.schema import Score
from align.scoring.stats import holm, minimum_detectable_effect
from evals.report.captions import Caption, Described
from evals.report.examples import Answer, Picture, picture_of, shown_answer
from evals.report.load import Results
from evals.report.metric import Metric
from evals.report.ngrams import PhraseChange, distinct_changes, phrase_changes, phrases_in
from evals.report.plots.series import Series, all_series
from evals.report.text import MAX_SHOWN, Span, clean, mark_spans

AIMED_AT = ("distinct_invention",)
"""Measures of what was asked for, beside the primary ones of `invention` and `probing`."""
_AIMS = ("invention", "probing")
_LEVEL = 0.05
_MAX_MEASURES, _MAX_PHRASES = 8, 12
_NUM_MEASURE_CASES, _NUM_PHRASE_CASES = 2, 4


@dataclass(frozen=True)
class Case:
    """A sample that changed in the direction of the whole: its picture, and both answers with marks."""

    sample_id: str
    title: str
    picture: Picture
    answers: Sequence[Answer]
    texts: Sequence[str]


@dataclass(frozen=True)
class MeasureChange:
    """A measure that changed beyond chance, with its standardised change and corrected p."""

    line: Metric
    z: float
    p_holm: float
    case: Case | None = None


@dataclass(frozen=True)
class WordChange:
    """A phrase that more or fewer descriptions have."""

    change: PhraseChange
    case: Case | None = None


@dataclass(frozen=True)
class Unasked:
    """The greatest changes beyond chance.

    Attributes:
        num_measures, num_phrases: how many were tested.
        aimed_at: names of measures that were left out as asked for.
        task: whose descriptions the phrases are of; empty where none were compared.
    """

    measures: Sequence[MeasureChange]
    words: Sequence[WordChange]
    num_measures: int
    num_phrases: int
    aimed_at: Sequence[str]
    task: str = ""

    def __bool__(self) -> bool:
        return bool(self.measures or self.words)

    @property
    def cases(self) -> list[Case]:
        """All examples, the measures' first."""
        return [item.case for item in (*self.measures, *self.words) if item.case is not None]

    def to_json(self) -> dict[str, Any]:
        """As it stands in `report.json`."""
        return {
            "tested": {"measures": self.num_measures, "phrases": self.num_phrases},
            "aimed_at": list(self.aimed_at),
            "task": self.task,
            "measures": [_measure_json(item) for item in self.measures],
            "phrases": [_phrase_json(item) for item in self.words],
        }


def find_unasked(
    results: Results, described: Described | None, seed: int, roots: Mapping[str, Path]
) -> Unasked:
    """Test everything, keep what changed beyond chance, draw examples at random.

    Args:
        described: the descriptions whose words are looked at; None when there are none.
        roots: task -> folder of its pictures.
    """
    if results.is_single:
        return Unasked([], [], 0, 0, [])
    aimed = _aimed_at(results)
    tested = _tested(results, aimed)
    rng = random.Random(seed)
    measures = []
    for line, z, p_holm in tested:
        if p_holm <= _LEVEL and len(measures) < _MAX_MEASURES:
            is_shown = len([item for item in measures if item.case]) < _NUM_MEASURE_CASES
            case = _measure_case(results, line, rng, roots) if is_shown else None
            measures.append(MeasureChange(line, z, p_holm, case))
    if described is None or not {results.before, results.after} <= described.captions.keys():
        return Unasked(measures, [], len(tested), 0, aimed)
    sides = [described.captions[name] for name in (results.before, results.after)]
    changes = [] if described.task in results.apart else phrase_changes(*sides)
    chosen = distinct_changes([item for item in changes if item.p_holm <= _LEVEL], _MAX_PHRASES)
    words = [
        WordChange(
            item,
            _phrase_case(results, described, item, rng, roots) if place < _NUM_PHRASE_CASES else None,
        )
        for place, item in enumerate(chosen)
    ]
    return Unasked(measures, words, len(tested), len(changes), aimed, described.task)


def standardised(line: Metric) -> float:
    """The change over its paired standard error; where every cluster changed alike, as if over the root mean
    square instead: the root of the number of clusters."""
    error = (line.change.mde or 0.0) / minimum_detectable_effect(1.0)
    delta = line.change.delta or 0.0
    return delta / error if error else math.copysign(math.sqrt(line.clusters), delta) if delta else 0.0


def _aimed_at(results: Results) -> list[str]:
    primary = [line.base_name for aim in _AIMS for line in results.primary(aim)]
    return sorted({*primary, *AIMED_AT})


def _tested(results: Results, aimed: Sequence[str]) -> list[tuple[Metric, float, float]]:
    """(line, z, Holm's p), the greatest change first: a measure once, of the first task of its type."""
    chosen: dict[tuple[str, str, str], Metric] = {}
    for line in results.metrics:
        is_aimed = line.base_name in (aimed if line.measures in _AIMS else AIMED_AT)
        is_told = line.change.delta is not None and line.change.p is not None and line.change.mde is not None
        if is_told and not is_aimed and line.mode in ("", results.mode_of(line.task)):
            chosen.setdefault((line.kind, line.base_name, line.part), line)
    lines = [line for line in chosen.values() if line.task == results.main_task(line.kind)]
    corrected = holm([line.change.p or 0.0 for line in lines])
    found = [(line, standardised(line), p) for line, p in zip(lines, corrected, strict=True)]
    return sorted(found, key=lambda item: -abs(item[1]))


def _measure_case(
    results: Results, line: Metric, rng: random.Random, roots: Mapping[str, Path]
) -> Case | None:
    """One at random of the samples that moved the measure as it moved, by what they add to its ratio."""
    direction = math.copysign(1.0, line.change.delta or 0.0)
    latter = results.index.get((line.task, results.after), {})
    sums: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {}
    for row in results.rows.get(line.task, {}).get(results.before, ()) if not line.part else ():
        other = latter.get(row.sample_id)
        one = results.sums_in(row, line.metric)
        two = results.sums_in(other, line.metric) if other is not None else None
        if one is not None and two is not None:
            sums[row.sample_id] = (one, two)
    below = sum(one[1] for one, _ in sums.values())
    ratio = sum(one[0] for one, _ in sums.values()) / below if below else 0.0
    moved = [
        sample
        for sample, (one, two) in sums.items()
        if direction * ((two[0] - ratio * two[1]) - (one[0] - ratio * one[1])) > 1e-9
    ]
    if not moved:
        return None
    sample = rng.choice(moved)
    rows = _sides(results, line.task, sample)
    answers = [shown_answer(results, line.task, series, row) for series, row in rows]
    title = f"{'higher' if direction > 0 else 'lower'}: {line.label}"
    return _case(sample, title, rows, answers, roots.get(line.task))


def _phrase_case(
    results: Results, described: Described, item: PhraseChange, rng: random.Random, roots: Mapping[str, Path]
) -> Case | None:
    """One at random of the descriptions that gained the phrase, or lost it where fewer have it."""
    moved = item.gained if item.z > 0 else item.lost
    if not moved:
        return None
    sample = rng.choice(list(moved))
    rows = _sides(results, described.task, sample)
    answers = []
    for series, _ in rows:
        caption = next(one for one in described.captions[series.key] if one.sample_id == sample)
        spans = [Span(start, end, "said", item.text) for start, end in _places(caption, item)]
        html = mark_spans(caption.text, spans)
        answers.append(Answer(series.name, series.css, html, "", is_bad=False))
    title = f"{'more' if item.z > 0 else 'fewer'} say “{item.text}”"
    return _case(sample, title, rows, answers, roots.get(described.task))


def _places(caption: Caption, item: PhraseChange) -> list[tuple[int, int]]:
    return [(start, end) for phrase, start, end in phrases_in(caption) if phrase == item.phrase]


def _sides(results: Results, task: str, sample: str) -> list[tuple[Series, Score]]:
    """The last two checkpoints' answers to a sample."""
    series = all_series(results.checkpoints)[-2:]
    return [(item, results.index[task, item.key][sample]) for item in series]


def _case(
    sample: str,
    title: str,
    rows: Sequence[tuple[Series, Score]],
    answers: Sequence[Answer],
    root: Path | None,
) -> Case:
    picture = picture_of(sample, rows[-1][1].meta, root)
    texts = [clean(str(row.meta.get("text") or ""))[:MAX_SHOWN] for _, row in rows]
    return Case(sample, title, picture, answers, texts)


def _measure_json(item: MeasureChange) -> dict[str, Any]:
    change = item.line.change
    before, after = list(item.line.values.values())[-2:]
    return {
        "task": item.line.task, "metric": item.line.metric, "split": item.line.split, "before": before,
        "after": after, "delta": change.delta, "ci_low": change.ci_low, "ci_high": change.ci_high,
        "z": round(item.z, 4), "p_holm": item.p_holm, "effect": item.line.effect, **_case_json(item.case),
    }  # fmt: skip


def _phrase_json(item: WordChange) -> dict[str, Any]:
    change = item.change
    return {
        "phrase": change.text, "before": change.before, "after": change.after, "captions": change.total,
        "gained": len(change.gained), "lost": len(change.lost), "z": round(change.z, 4),
        "p_holm": change.p_holm, **_case_json(item.case),
    }  # fmt: skip


def _case_json(case: Case | None) -> dict[str, Any]:
    if case is None:
        return {}
    return {"example": {"sample_id": case.sample_id, "before": case.texts[0], "after": case.texts[1]}}
