"""Answers that somebody compared or scored: LLaVA-RLHF's choices of people, BPO's scored completions.

https://huggingface.co/datasets/zhiqings/LLaVA-Human-Preference-10K (`preference` says which of two outputs is
the better one) and https://github.com/pipilurj/bootstrapped-preference-optimization-BPO
(data_generation/README.md).
"""

from __future__ import annotations

from typing import Any

from data_tools.importers.dialogue import ends_asking, place
from data_tools.importers.published import Format, Published, Row
from data_tools.importers.turns import read_turns, text_of, text_turn
from data_tools.importers.unusable import Unusable


def _llava_rlhf(published: Published) -> list[Row]:
    images = published.pictures.of(published.first("image", "images"))
    asked = ends_asking(read_turns(published.get("conversations"), published.note))
    outputs = [_output(published.get(f"output_{number}")) for number in (1, 2)]
    better = published.get("preference")
    if isinstance(better, bool) or better not in (1, 2):
        raise Unusable("no preference between the two outputs", repr(better)[:100])
    dialogue = place(published, asked, images)
    meta = published.kept(bool(images))
    chosen, rejected = outputs[better - 1], outputs[2 - better]
    return [published.pair(dialogue.images, dialogue.messages, chosen, rejected, meta)]


def _output(value: Any) -> str:
    return text_of(value.get("value") if isinstance(value, dict) else value, "output")


def _bpo(published: Published) -> list[Row]:
    images = published.pictures.of(published.first("image", "img_path", "images"))
    dialogue = place(published, [text_turn("user", published.text("prompt"))], images)
    scored = [_scored(answer) for answer in _listed(published.get("completions"))]
    scored.sort(key=lambda answer: -answer[0])
    if len(scored) < 2 or scored[0][0] == scored[-1][0]:
        raise Unusable("all answers are rated the same", f"{len(scored)} answers")
    best = scored[0]
    worse = [answer for answer in reversed(scored) if answer[0] < best[0] and answer[1] != best[1]]
    if not worse:
        raise Unusable("chosen and rejected are the same text")
    meta = published.kept(bool(images))
    rows: list[Row] = []
    for number, (score, text, kind) in enumerate(worse[: published.options.max_pairs]):
        told = meta | {"margin": round(best[0] - score, 4), "chosen_score": best[0], "rejected_score": score}
        told |= {"rejected_type": kind} if kind else {}
        rows.append(published.pair(dialogue.images, dialogue.messages, best[1], text, told, number=number))
    if len(worse) > len(rows):
        published.note("further worse answers left out (--max_pairs)")
    return rows


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Unusable("no completions", type(value).__name__)
    return value


def _scored(answer: Any) -> tuple[float, str, str]:
    if not isinstance(answer, dict):
        raise Unusable("a completion is no object", type(answer).__name__)
    score = answer.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) < 1e9:
        raise Unusable("a completion without a score", repr(score)[:100])
    kind = answer.get("type")
    return float(score), text_of(answer.get("response"), "response"), kind if isinstance(kind, str) else ""


def _is_scored(row: dict[str, Any]) -> bool:
    answers = row.get("completions")
    return (
        isinstance(answers, list) and bool(answers) and isinstance(answers[0], dict) and "score" in answers[0]
    )


FORMATS = (
    Format(
        "llava_rlhf",
        "LLaVA-RLHF's human preferences: pairs",
        '{"id", "image", "conversations": [{"from", "value"}], "output_1": {"value"}, "output_2", '
        '"preference": 1 or 2}',
        _llava_rlhf,
        needs=("conversations", "output_1", "output_2", "preference"),
    ),
    Format(
        "bpo",
        "BPO: pairs from scored completions (--max_pairs a question, worst first)",
        '{"image", "prompt": "...\\n<image>", "completions": [{"score", "response", "type"}]}',
        _bpo,
        needs=("prompt", "completions"),
        tells=_is_scored,
    ),
)
