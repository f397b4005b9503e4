"""Instruction rows from VQAv2-format questions and from COCO captions."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Literal

from pydantic import Field

from align.config.recipe import Strict
from align.objects.coco import VqaQuestion, load_captions, load_questions
from align.rows.schema import Message, SFTRow
from align.rows.tally import Tally
from data_tools.material.pictures import Pictures

SHORT_ANSWER_SUFFIX = "\nAnswer the question using a single word or phrase."
DESCRIBE_PROMPT = "Please describe this image in detail."
DESCRIBE_PROMPTS = [
    DESCRIBE_PROMPT,
    "Describe this image.",
    "What do you see in this picture?",
    "Write a caption for this image.",
]


class Questions(Strict):
    """Dialogues of short-answer questions (VQAv2 format)."""

    kind: Literal["questions"]
    share: float = Field(default=0.7, ge=0, description="of the rows, against the other sources' shares")
    questions: Path = Field(description="VQAv2 questions file")
    annotations: Path = Field(description="VQAv2 annotations file")
    turns: int = Field(default=4, ge=1, description="most questions in one dialogue, all on one image")
    max_per_image: int = Field(default=8, ge=1, description="most questions of one image, over all dialogues")
    max_per_task: int | None = Field(
        default=None, ge=1, description="most questions of one kind (VQAv2's question_type) on one image"
    )
    suffix: str = Field(default=SHORT_ANSWER_SUFFIX, description="asks for a short answer")
    suffix_share: float = Field(default=1.0, ge=0, le=1, description="share of dialogues that use the suffix")
    min_agreement: float = Field(
        default=0.3, ge=0, le=1, description="share of annotators who must have given the answer"
    )

    def inputs(self) -> dict[str, Path]:
        """For `run_stage`."""
        return {"questions": self.questions, "annotations": self.annotations}


class Captions(Strict):
    """Rows that ask for a description."""

    kind: Literal["captions"]
    share: float = Field(default=0.3, ge=0, description="of the rows, against the other sources' shares")
    annotations: Path = Field(description="COCO captions file to learn from; may be noisy web captions")
    prompts: list[str] = Field(default=DESCRIBE_PROMPTS, min_length=1, description="one is drawn a row")
    max_per_image: int = Field(default=1, ge=1, description="most caption rows of one image")

    def inputs(self) -> dict[str, Path]:
        """For `run_stage`."""
        return {"captions": self.annotations}


def vqa_dialogues(section: Questions, train: Pictures, tally: Tally, seed: int) -> list[SFTRow]:
    """Dialogues of up to `turns` questions on one image, in a seeded order within the image."""
    by_image: dict[int, list[VqaQuestion]] = {}
    for question in load_questions(section.questions, section.annotations):
        reason = _unusable(question, section, train)
        if reason:
            tally.drop(reason, str(question.id))
        else:
            by_image.setdefault(question.image_id, []).append(question)
    rows = []
    for image_id, questions in sorted(by_image.items()):
        rng = random.Random(f"{seed} dialogue {image_id}")
        rng.shuffle(questions)
        questions = _task_capped(section, questions, tally)
        for extra in questions[section.max_per_image :]:
            tally.drop("more than max_per_image", str(extra.id))
        chosen = questions[: section.max_per_image]
        tally.keep(len(chosen))
        for number, start in enumerate(range(0, len(chosen), section.turns)):
            turns = chosen[start : start + section.turns]
            suffix = section.suffix if rng.random() < section.suffix_share else ""
            rows.append(_dialogue(f"vqa-{image_id}-{number}", train.paths[image_id], turns, suffix))
    return rows


def _task_capped(section: Questions, questions: list[VqaQuestion], tally: Tally) -> list[VqaQuestion]:
    if section.max_per_task is None:
        return questions
    kept, tasks = [], Counter[str]()
    for question in questions:
        tasks[question.kind] += 1
        if tasks[question.kind] > section.max_per_task:
            tally.drop("more than max_per_task", str(question.id))
        else:
            kept.append(question)
    return kept


def _unusable(question: VqaQuestion, section: Questions, train: Pictures) -> str:
    if question.image_id not in train.paths:
        return "image is not a train image"
    if not question.answer.strip() or not question.question.strip():
        return "empty question or answer"
    if question.agreement < section.min_agreement * question.num_answers:
        return "annotators disagree"
    return "" if train.sha256(question.image_id) else "image cannot be used"


def _dialogue(row_id: str, image: str, questions: list[VqaQuestion], suffix: str) -> SFTRow:
    messages = []
    for question in questions:
        messages.append(Message(role="user", content=question.question + suffix))
        messages.append(Message(role="assistant", content=written_answer(question.answer)))
    meta = {"kind": "questions", "image_id": questions[0].image_id, "questions": [q.id for q in questions]}
    return SFTRow(id=row_id, images=[image], messages=messages, meta=meta)


def written_answer(answer: str) -> str:
    """An annotator's answer as an assistant writes it: `Yes`, `No`; the rest stays as it is."""
    return answer.strip().capitalize() if answer.strip().lower() in ("yes", "no") else answer.strip()


def caption_rows(section: Captions, train: Pictures, tally: Tally, seed: int) -> list[SFTRow]:
    """One row a caption, under a prompt drawn by seed."""
    rows = []
    for image_id, captions in sorted(load_captions(section.annotations).items()):
        usable = image_id in train.paths and train.sha256(image_id)
        rng = random.Random(f"{seed} caption {image_id}")
        order = list(range(len(captions)))
        rng.shuffle(order)
        for number, index in enumerate(order):
            if not usable or not captions[index] or number >= section.max_per_image:
                reason = "image is not a usable train image" if not usable else "more than max_per_image"
                tally.drop(reason if captions[index] else "empty caption", f"{image_id}[{index}]")
                continue
            tally.keep()
            turns = [
                Message(role="user", content=rng.choice(section.prompts)),
                Message(role="assistant", content=captions[index]),
            ]
            meta = {"kind": "captions", "image_id": image_id}
            row_id = f"caption-{image_id}-{index}"
            rows.append(SFTRow(id=row_id, images=[train.paths[image_id]], messages=turns, meta=meta))
    return rows
