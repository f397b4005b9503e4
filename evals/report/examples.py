"""Examples with their pictures, drawn at random within groups, never chosen by hand."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from align.errors import AlignError
from align.schema import Score
from evals.report.flips import is_right, mentions_of
from evals.report.load import Results, task_label
from evals.report.plots.series import all_series
from evals.report.text import Span, mark_spans, short

STRATA = {
    "improved": "fewer inventions",
    "still_bad": "still inventing",
    "worsened": "more inventions",
    "good": "good before and after",
    "gained": "answer gained",
    "lost": "answer lost",
}
_CAPTION_STRATA = ("improved", "still_bad", "worsened", "good")
# Pictures larger than this are scaled down; smaller ones are shown pixel by pixel.
_MAX_SIDE = 384
_PIXELATED_BELOW = 160


@dataclass(frozen=True)
class Answer:
    """One checkpoint's answer, ready for the page."""

    name: str
    css: str
    html: Markup
    note: str
    is_bad: bool


@dataclass(frozen=True)
class Example:
    """A sample with its picture as a data URI and every checkpoint's answer."""

    stratum: str
    sample_id: str
    prompt: str
    truth: str
    image: str
    alt: str
    width: int
    height: int
    answers: Sequence[Answer]

    @property
    def stratum_name(self) -> str:
        """The group's name for readers."""
        return STRATA[self.stratum]

    @property
    def pixel(self) -> bool:
        """Whether the picture is so small that it is shown pixel by pixel."""
        return max(self.width, self.height) < _PIXELATED_BELOW


def choose_examples(results: Results, count: int, seed: int, roots: Mapping[str, Path]) -> list[Example]:
    """About three captions for each question, spread evenly over the groups that occur.

    Args:
        count: examples in all.
        roots: task -> folder of its images; a task without one is shown without pictures.
    """
    caption_groups: dict[str, list[tuple[str, str]]] = {}
    question_groups: dict[str, list[tuple[str, str]]] = {}
    for task in sorted(results.rows):
        for row in results.rows[task].get(results.before, []):
            other = _row(results, task, results.after, row.sample_id)
            stratum = _stratum(row, other, results.mode_of(task)) if other else None
            if stratum:
                groups = caption_groups if stratum in _CAPTION_STRATA else question_groups
                groups.setdefault(stratum, []).append((task, row.sample_id))
    rng = random.Random(seed)
    num_questions = min(count // 4, sum(map(len, question_groups.values()))) if caption_groups else count
    chosen = _spread(caption_groups, count - num_questions, rng) + _spread(
        question_groups, num_questions, rng
    )
    order = list(STRATA)
    chosen.sort(key=lambda item: order.index(item[0]))
    return [_example(results, stratum, task, sample, roots.get(task)) for stratum, task, sample in chosen]


def embed_image(path: Path) -> tuple[str, int, int]:
    """(data URI, width, height); large pictures are scaled down and become JPEG.

    Raises:
        AlignError: missing or not a readable image.
    """
    from align.images import open_image

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


def _spread(groups: Mapping[str, list[Any]], count: int, rng: random.Random) -> list[tuple[str, str, str]]:
    """Up to `count` members, one a group in turn, each group in random order."""
    shuffled = {name: rng.sample(groups[name], len(groups[name])) for name in STRATA if name in groups}
    found: list[tuple[str, str, str]] = []
    while len(found) < count and any(shuffled.values()):
        for name, members in shuffled.items():
            if members and len(found) < count:
                found.append((name, *members.pop()))
    return found


def _stratum(before: Score, after: Score, mode: str) -> str | None:
    if mentions_of(before, mode) is not None and mentions_of(after, mode) is not None:
        old, new = _num_invented(before, mode), _num_invented(after, mode)
        if old == new:
            return "still_bad" if old else "good"
        return "improved" if new < old else "worsened"
    one, two = is_right(before, mode), is_right(after, mode)
    if one is None or two is None or one == two:
        return None
    return "gained" if two else "lost"


def _example(results: Results, stratum: str, task: str, sample_id: str, root: Path | None) -> Example:
    series = all_series(results.checkpoints)
    rows = [(item, _row(results, task, item.key, sample_id)) for item in series]
    meta = next(row.meta for _, row in reversed(rows) if row)
    answers = [_answer(item.name, item.css, row, results.mode_of(task)) for item, row in rows if row]
    image, width, height, problem = "", 0, 0, "no picture"
    if root is not None and meta.get("image"):
        try:
            from align.images import resolve_image

            image, width, height = embed_image(resolve_image(root, str(meta["image"])))
        except AlignError as error:
            problem = error.what
    question = short(str(meta.get("question") or ""))
    label = task_label(task, next((line.type for line in results.metrics if line.task == task), task))
    prompt = f"{label} · {question}" if question else label
    alt = f"Test picture {short(sample_id, 40)}" if image else problem
    return Example(stratum, sample_id, prompt, _truth(meta), image, alt, width, height, answers)


def _answer(name: str, css: str, row: Score, mode: str) -> Answer:
    answer = str(row.meta.get("text") or "")
    mentions = mentions_of(row, mode)
    if mentions is None:
        right = is_right(row, mode)
        note = {True: "✓ right", False: "✗ wrong", None: ""}[right]
        return Answer(name, css, _or_empty(answer, []), note, right is False)
    spans = [_span(mention) for mention in mentions]
    count = _num_invented(row, mode)
    return Answer(name, css, _or_empty(answer, spans), f"{count} invented" if count else "", count > 0)


def _span(mention: Mapping[str, Any]) -> Span:
    css, where = ("invented", "not in the picture") if mention["invented"] else ("present", "in the picture")
    tip = f"{short(str(mention['category']), 40)}: {where}"
    return Span(int(mention["start"]), int(mention["end"]), css, tip)


def _or_empty(answer: str, spans: Sequence[Span]) -> Markup:
    return mark_spans(answer, spans) if answer.strip() else Markup('<i class="cut">empty answer</i>')


def _truth(meta: Mapping[str, Any]) -> str:
    label = meta.get("label")
    words = ", ".join(map(str, label)) if isinstance(label, list) else str(label or "")
    return f"truth: {short(words)}" if words else ""


def _num_invented(row: Score, mode: str) -> int:
    return sum(bool(mention["invented"]) for mention in mentions_of(row, mode) or [])


def _row(results: Results, task: str, checkpoint: str, sample_id: str) -> Score | None:
    return results.index.get((task, checkpoint), {}).get(sample_id)
