"""VLFeedback: four rated answers a question, of which pairs are made.

https://huggingface.co/datasets/MMInstruction/VLFeedback. An answer's score is the mean of its ratings (1 to
5) for helpfulness, ethical considerations and visual faithfulness, as in Silkie (Li et al. 2023,
arXiv:2312.10665); the pairs with the widest gaps come first, and the gap is kept as `meta.margin`.
"""

from __future__ import annotations

from itertools import combinations
from statistics import fmean
from typing import Any

from data_tools.importers.published import Format, Published, Row
from data_tools.importers.turns import question_turn
from data_tools.importers.unusable import Unusable

ASPECTS = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")


def _convert(published: Published) -> list[Row]:
    images = published.pictures.of(published.get("image") or published.get("img_path"))
    prompt = question_turn(published.text("prompt"), len(images), marked=False)
    rated = [answer for answer in map(_rated, _completions(published.get("completions"))) if answer]
    if len(rated) < 2:
        raise Unusable("fewer than two rated answers", f"{len(rated)}")
    gaps = [
        (abs(a[0] - b[0]), max(a, b, key=_score), min(a, b, key=_score)) for a, b in combinations(rated, 2)
    ]
    useful = [gap for gap in gaps if gap[0] > 0 and gap[1][1] != gap[2][1]]
    if not useful:
        raise Unusable("all answers are rated the same")
    useful.sort(key=lambda gap: -gap[0])
    rows: list[Row] = []
    for number, (gap, better, worse) in enumerate(useful[: published.options.max_pairs]):
        meta = published.origin()
        meta |= {"margin": round(gap, 4), "chosen_model": better[2], "rejected_model": worse[2]}
        meta |= {"chosen_score": round(better[0], 4), "rejected_score": round(worse[0], 4)}
        rows.append(published.pair(images, prompt, better[1], worse[1], meta, number=number))
    return rows


def _score(answer: tuple[float, str, str]) -> float:
    return answer[0]


def _completions(value: Any) -> list[Any]:
    """The answers, one object each; `datasets` turns a sequence of objects into an object of lists."""
    if isinstance(value, dict) and all(isinstance(part, list) for part in value.values()):
        if len({len(part) for part in value.values()}) > 1:
            raise Unusable("completions are of unequal lengths")
        return [dict(zip(value, parts, strict=True)) for parts in zip(*value.values(), strict=True)]
    if not isinstance(value, list):
        raise Unusable("no completions", type(value).__name__)
    return value


def _rated(answer: Any) -> tuple[float, str, str] | None:
    """(score, text, model) of an answer that has all ratings; None for any other."""
    if not isinstance(answer, dict) or not isinstance(answer.get("annotations"), dict):
        return None
    text = answer.get("response")
    if not isinstance(text, str) or not text.strip():
        return None
    ratings = []
    for aspect in ASPECTS:
        rating = answer["annotations"].get(aspect)
        value = rating.get("Rating") if isinstance(rating, dict) else None
        try:
            number = float(value) if isinstance(value, str | int | float) else 0.0
        except (ValueError, OverflowError):
            number = 0.0
        if not 1 <= number <= 5:
            return None
        ratings.append(number)
    return fmean(ratings), text, str(answer.get("model"))[:200].encode("utf-8", "replace").decode()


FORMATS = (
    Format(
        "vlfeedback",
        "MMInstruction/VLFeedback: pairs from ratings (--max_pairs a question, widest gap first)",
        '{"id", "prompt", "models", "completions": [{"annotations": {"Helpfulness": {"Rating"}}, "model", '
        '"response"}], "img_path"}',
        _convert,
        needs=("prompt", "completions"),
        tells=lambda row: "annotations" in str(row.get("completions"))[:100_000],
    ),
)
