"""GQA's questions as dialogues: short answers, or its full sentences.

Format: https://cs.stanford.edu/people/dorarad/gqa/download.html, `{train,val}_balanced_questions.json`:
question id -> {question, imageId, answer, fullAnswer, types: {structural, semantic, detailed}, ...}.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from align.config.recipe import Strict
from align.errors import AlignError
from align.objects.coco import read_json
from align.rows.schema import Message, SFTRow


class Gqa(Strict):
    """Dialogues from GQA."""

    kind: Literal["gqa"]
    share: float = Field(default=0.5, ge=0, description="of the rows, against the other sources' shares")
    questions: Path = Field(description="GQA questions file")
    prefix: str = Field(default="", description="put before `<image id>.jpg` to get a path under image_root")
    suffix_of_files: str = Field(default=".jpg", description="how image files end")
    turns: int = Field(default=4, ge=1, description="most questions in one dialogue, all on one image")
    max_per_image: int = Field(default=8, ge=1, description="most questions of one image")
    max_per_task: int | None = Field(
        default=2,
        ge=1,
        description="most questions of one kind (GQA's detailed type) on one image; null: any",
    )
    full_share: float = Field(
        default=0.3, ge=0, le=1, description="share of dialogues with full sentences for answers"
    )
    suffix: str = Field(
        default="\nAnswer the question using a single word or phrase.", description="asks for a short answer"
    )

    def inputs(self) -> dict[str, Path]:
        """For `run_stage`."""
        return {"questions": self.questions}


@dataclass(frozen=True)
class GqaQuestion:
    """A question with both its answers; `task` is GQA's detailed type, such as `existAttrTrue`."""

    id: str
    image_id: str
    question: str
    answer: str
    full_answer: str
    task: str


def load_gqa(path: Path) -> list[GqaQuestion]:
    """All questions, by id.

    Raises:
        AlignError: not GQA's format, or no questions.
    """
    tree = read_json(path)
    if not isinstance(tree, dict) or not tree:
        raise AlignError(
            "no GQA questions in this file", where=str(path), fix="name a *_questions.json of GQA"
        )
    return [_question(str(key), tree[key], path) for key in sorted(tree)]


def gqa_dialogues(section: Gqa, by_image: dict[str, list[GqaQuestion]], seed: int) -> Iterator[SFTRow]:
    """Dialogues of up to `turns` questions, in a seeded order within each image; capped before."""
    for image_id, questions in sorted(by_image.items()):
        rng = random.Random(f"{seed} gqa {image_id}")
        for number, start in enumerate(range(0, len(questions), section.turns)):
            full = rng.random() < section.full_share
            chosen = questions[start : start + section.turns]
            messages = []
            for item in chosen:
                asked = item.question if full else item.question + section.suffix
                said = item.full_answer if full else item.answer.capitalize()
                messages += [Message(role="user", content=asked), Message(role="assistant", content=said)]
            meta = {
                "kind": "gqa",
                "image_id": image_id,
                "questions": [item.id for item in chosen],
                "tasks": [item.task for item in chosen],
            }
            image = f"{section.prefix}{image_id}{section.suffix_of_files}"
            yield SFTRow(id=f"gqa-{image_id}-{number}", images=[image], messages=messages, meta=meta)


def capped(section: Gqa, questions: list[GqaQuestion], seed: int) -> tuple[list[GqaQuestion], list[str]]:
    """One image's questions in a seeded order within both caps, and why each of the others is left out."""
    order = sorted(questions, key=lambda item: item.id)
    random.Random(f"{seed} gqa order {order[0].image_id}").shuffle(order)
    kept: list[GqaQuestion] = []
    reasons: list[str] = []
    tasks: dict[str, int] = {}
    for item in order:
        if section.max_per_task is not None and tasks.get(item.task, 0) >= section.max_per_task:
            reasons.append("more than max_per_task")
        elif len(kept) >= section.max_per_image:
            reasons.append("more than max_per_image")
        else:
            kept.append(item)
            tasks[item.task] = tasks.get(item.task, 0) + 1
    return kept, reasons


def _question(key: str, row: Any, path: Path) -> GqaQuestion:
    where = f"{path} question {key}"
    if not isinstance(row, dict):
        raise AlignError("not a question", where=where)
    missing = next((name for name in ("question", "imageId", "answer") if name not in row), None)
    if missing is not None:
        raise AlignError(f"missing field {missing!r}", where=where)
    types = row.get("types") if isinstance(row.get("types"), dict) else {}
    task = str((types or {}).get("detailed") or (types or {}).get("structural") or "")
    full = str(row.get("fullAnswer") or row["answer"])
    return GqaQuestion(key, str(row["imageId"]), str(row["question"]), str(row["answer"]), full, task)
