"""Examples with their pictures, drawn at random within groups, never chosen by hand."""

from __future__ import annotations

import base64
import io
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from align.errors import AlignError
from align.rows.schema import Score
from evals.report.flips import right_in
from evals.report.inventions import Mark, invented_in, marks_in
from evals.report.load import Results
from evals.report.plots.series import Series, all_series
from evals.report.text import Span, mark_spans, short

STRATA = {
    "improved": "fewer inventions",
    "still_bad": "still inventing",
    "worsened": "more inventions",
    "good": "nothing invented",
    "gained": "answer gained",
    "lost": "answer lost",
    "still_wrong": "still wrong",
    "right": "right",
}
"""Groups of samples by what the last two checkpoints made of them, in the order of the page."""
_ALONE = {"still_bad": "inventing", "still_wrong": "wrong"}
_CAPTION_STRATA = ("improved", "still_bad", "worsened", "good")
# Pictures larger than this are scaled down; smaller ones are shown pixel by pixel.
_MAX_SIDE = 384
_PIXELATED_BELOW = 160

Groups = dict[tuple[str, str], list[str]]
"""(stratum, task) -> ids of its samples."""


@dataclass(frozen=True)
class Answer:
    """One checkpoint's answer, ready for the page."""

    name: str
    css: str
    html: Markup
    note: str
    is_bad: bool


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, empty where there is none, and what stands for it."""

    uri: str
    alt: str
    width: int
    height: int

    @property
    def pixel(self) -> bool:
        """Whether the picture is so small that it is shown pixel by pixel."""
        return max(self.width, self.height) < _PIXELATED_BELOW


@dataclass(frozen=True)
class Example:
    """A sample with its picture as a data URI and every checkpoint's answer."""

    stratum: str
    stratum_name: str
    task: str
    sample_id: str
    prompt: str
    truth: str
    picture: Picture
    answers: Sequence[Answer]


def choose_examples(results: Results, count: int, seed: int, roots: Mapping[str, Path]) -> list[Example]:
    """About two captions for each question, spread evenly over the groups and tasks that occur.

    Args:
        count: examples in all.
        roots: task -> folder of its images; a task without one is shown without pictures.
    """
    caption_groups: Groups = {}
    question_groups: Groups = {}
    for task in sorted(results.rows.keys() - results.apart.keys()):
        for row in results.rows[task].get(results.before, []):
            other = _row(results, task, results.after, row.sample_id)
            stratum = _stratum(results, task, row, other) if other else None
            if stratum:
                groups = caption_groups if stratum in _CAPTION_STRATA else question_groups
                groups.setdefault((stratum, task), []).append(row.sample_id)
    rng = random.Random(seed)
    num_questions = min(count // 3, sum(map(len, question_groups.values()))) if caption_groups else count
    chosen = _spread(caption_groups, count - num_questions, rng) + _spread(
        question_groups, num_questions, rng
    )
    order = list(STRATA)
    chosen.sort(key=lambda item: order.index(item[0]))
    return [_example(results, stratum, task, sample, roots.get(task)) for stratum, task, sample in chosen]


def stratum_name(stratum: str, results: Results) -> str:
    """A group's name for readers."""
    return _ALONE.get(stratum, STRATA[stratum]) if results.is_single else STRATA[stratum]


def embed_image(path: Path) -> tuple[str, int, int]:
    """(data URI, width, height); large pictures are scaled down and become JPEG.

    Raises:
        AlignError: missing or not a readable image.
    """
    from align.inputs.images import open_image

    image = open_image(path)
    if max(image.size) > _MAX_SIDE:
        image.thumbnail((_MAX_SIDE, _MAX_SIDE))
        kind, options = "JPEG", {"quality": 80, "optimize": True}
    else:
        kind, options = (
            ("PNG", {"optimize": True}) if max(image.size) < _PIXELATED_BELOW else ("JPEG", {"quality": 88})
        )
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{data}", image.width, image.height


def picture_of(sample_id: str, meta: Mapping[str, Any], root: Path | None) -> Picture:
    """The picture that a row's `meta` names, or why there is none to show."""
    if root is None or not meta.get("image"):
        return Picture("", "no picture", 0, 0)
    try:
        from align.inputs.images import resolve_image

        image, width, height = embed_image(resolve_image(root, str(meta["image"])))
    except AlignError as error:
        return Picture("", error.what, 0, 0)
    return Picture(image, _alt(sample_id, meta), width, height)


def _spread(groups: Groups, count: int, rng: random.Random) -> list[tuple[str, str, str]]:
    """Up to `count` (stratum, task, sample), one a stratum in turn, its tasks in turn, else at random."""
    by_stratum = {
        stratum: [rng.sample(ids, len(ids)) for (name, _), ids in groups.items() if name == stratum]
        for stratum in STRATA
    }
    tasks = {stratum: [task for name, task in groups if name == stratum] for stratum in STRATA}
    found: list[tuple[str, str, str]] = []
    turns = {stratum: deque(range(len(lists))) for stratum, lists in by_stratum.items()}
    while len(found) < count and any(turns.values()):
        for stratum, turn in turns.items():
            if not turn or len(found) == count:
                continue
            place = turn.popleft()
            members = by_stratum[stratum][place]
            found.append((stratum, tasks[stratum][place], members.pop()))
            if members:
                turn.append(place)
    return found


def _stratum(results: Results, task: str, before: Score, after: Score) -> str | None:
    mode = results.mode_of(task)
    one, two = (invented_in(row, mode) for row in (before, after))
    if one is not None and two is not None:
        if len(one) == len(two):
            return "still_bad" if one else "good"
        return "improved" if len(two) < len(one) else "worsened"
    was, now = (right_in(results, task, row) for row in (before, after))
    if was is None or now is None:
        return None
    if was == now:
        return "right" if was else "still_wrong"
    return "gained" if now else "lost"


def _example(results: Results, stratum: str, task: str, sample_id: str, root: Path | None) -> Example:
    series = all_series(results.checkpoints)
    rows = [(item, _row(results, task, item.key, sample_id)) for item in series]
    meta = next(row.meta for _, row in reversed(rows) if row)
    answers = [shown_answer(results, task, item, row) for item, row in rows if row]
    picture = picture_of(sample_id, meta, root)
    question = short(str(meta.get("question") or ""))
    label = results.label_of(task)
    prompt = f"{label} · {question}" if question else label
    name = stratum_name(stratum, results)
    return Example(stratum, name, label, sample_id, prompt, _truth(meta), picture, answers)


def _alt(sample_id: str, meta: Mapping[str, Any]) -> str:
    """What stands for the picture: the objects that are known to be in it, where they are."""
    label, name = meta.get("label"), f"Test picture {short(sample_id, 40)}"
    there = ", ".join(map(str, label)) if isinstance(label, list) else ""
    return f"{name}, which shows {short(there, 120)}" if there else name


def shown_answer(results: Results, task: str, series: Series, row: Score) -> Answer:
    """A checkpoint's answer to a sample, its objects marked, and what came of it."""
    answer, mode = str(row.meta.get("text") or ""), results.mode_of(task)
    invented = invented_in(row, mode)
    if invented is None:
        right = right_in(results, task, row)
        note = {True: "✓ right", False: "✗ wrong", None: ""}[right]
        return Answer(series.name, series.css, _or_empty(answer, []), note, right is False)
    spans = [_span(mark) for mark in marks_in(row, mode)]
    note = f"{len(invented)} invented" if invented else ""
    return Answer(series.name, series.css, _or_empty(answer, spans), note, bool(invented))


def _span(mark: Mark) -> Span:
    css, where = ("invented", "not in the picture") if mark.is_invented else ("present", "in the picture")
    return Span(mark.start, mark.end, css, f"{short(mark.name, 40)}: {where}")


def _or_empty(answer: str, spans: Sequence[Span]) -> Markup:
    return mark_spans(answer, spans) if answer.strip() else Markup('<i class="cut">empty answer</i>')


def _truth(meta: Mapping[str, Any]) -> str:
    label = meta.get("label")
    words = ", ".join(map(str, label)) if isinstance(label, list) else str(label or "")
    return f"truth: {short(words)}" if words else ""


def _row(results: Results, task: str, checkpoint: str, sample_id: str) -> Score | None:
    return results.index.get((task, checkpoint), {}).get(sample_id)
