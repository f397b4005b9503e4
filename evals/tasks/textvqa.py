"""TextVQA: questions about text in pictures (Singh et al. 2019, arXiv:1904.08920; https://textvqa.org).

Reads `TextVQA_0.5.1_val.json`. LLaVA's published numbers give the model OCR tokens with the question; its
file of prompts (`llava_textvqa_val_v051_ocr.jsonl`) can be named as `prompts` to ask exactly those.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field
from typing_extensions import override

from align.errors import AlignError
from align.objects.coco import load_section
from align.rows.schema import Message
from evals.answer_files.folder import find_file
from evals.answer_files.rows import Row, read_answer_rows
from evals.protocol import Card, Grade, Sample
from evals.scoring.graders import grade_evalai
from evals.tasks.question_task import (
    ID_FIELDS,
    Question,
    QuestionConfig,
    QuestionTask,
    answers_as,
    read_fields,
)

ANSWER_FORMAT = answers_as(
    "[{question_id, answer}]",
    "LLaVA's JSONL whose question_id is the image and whose prompt has the question",
)
_M4C_PROMPT = re.compile(r"Question: (.*?) Short answer:", re.DOTALL)


class Config(QuestionConfig):
    """TextVQA's annotation file, and perhaps prompts made elsewhere."""

    annotations: Path = Field(description="TextVQA annotations JSON with answers")
    file_name: str = Field(default="{image_id}.jpg", description="image file of an image id")
    prompts: Path | None = Field(
        default=None, description="LLaVA's JSONL {question_id (the image), text}: asked instead of `prompt`"
    )


class TextVqa(QuestionTask[Config]):
    """See the module."""

    answer_format = ANSWER_FORMAT

    @override
    def inputs(self) -> dict[str, Path]:
        files = {"annotations": self.config.annotations, "prompts": self.config.prompts}
        return {name: path for name, path in files.items() if path is not None}

    @override
    def questions(self) -> list[Question]:
        path = self.config.annotations
        return [
            self._question(row, f"{path} data[{number}]")
            for number, row in enumerate(load_section(path, "data"))
        ]

    def _question(self, row: Any, where: str) -> Question:
        name, image_id, text, answers = read_fields(
            row, ("question_id", "image_id", "question", "answers"), where
        )
        if not isinstance(answers, list) or not answers:
            raise AlignError("no answers to this question", where=where, fix="use a split with answers")
        texts = [str(answer) for answer in answers]
        return Question(
            id=str(name),
            image=self.config.file_name.format(image_id=image_id),
            text=str(text),
            reference={"answers": texts, "image_id": str(image_id)},
            label=max(texts, key=texts.count),
        )

    @override
    def samples(self) -> list[Sample]:
        samples = super().samples()
        if self.config.prompts is None:
            return samples
        path = self.config.prompts
        rows = read_answer_rows(path, "LLaVA's questions {question_id, text} a line")
        prompts = {(str(row.fields.get("question_id")), _question_in(row, "text")): row for row in rows}
        found = []
        for sample in samples:
            row = prompts.get((sample.reference["image_id"], sample.meta["question"].lower()))
            if row is None:
                raise AlignError(f"no prompt for question {sample.id}", where=str(path))
            asked = [Message(role="user", content=str(row.fields["text"]))]
            found.append(Sample(**{**vars(sample), "messages": asked}))
        return found

    @override
    def grade(self, reference: Mapping[str, Any], text: str) -> Grade:
        return grade_evalai(reference["answers"], text)

    @override
    def answered_id(self, row: Row) -> str:
        name = row.need_id(ID_FIELDS, ANSWER_FORMAT)
        return self._ids.get((name, _question_in(row, "prompt")), name)

    @cached_property
    def _ids(self) -> dict[tuple[str, str], str]:
        """(image, question in lower case) -> question id."""
        return {
            (question.reference["image_id"], question.text.lower()): question.id
            for question in self.questions()
        }

    @property
    @override
    def card(self) -> Card:
        return Card(
            task=self.name,
            type=self.type,
            prompt=self.config.prompt if self.config.prompts is None else f"as in {self.config.prompts.name}",
            parser="EvalAI's normaliser on answer and annotators, always; strict: an empty answer is worth 0",
            split=self.config.split,
            aggregation="min(1, matches among the other annotators / 3), mean over annotators and questions",
            source="TextVQA 0.5.1 (arXiv:1904.08920)",
            licence="CC-BY-4.0",
            mode=self.config.primary_mode,
            cluster="image",
        )

    @override
    @classmethod
    def locate(cls, data: Path) -> dict[str, Any]:
        """The validation annotations."""
        found = find_file(data, "TextVQA_0.5.1_val.json", "TextVQA*val*.json", "*val*.json", "*.json")
        return {"annotations": found} if found is not None else {}


TASK = TextVqa


def _question_in(row: Row, field: str) -> str:
    """The question that a LLaVA prompt asks, in lower case (llava/eval/eval_textvqa.py at c121f043)."""
    prompt = str(row.fields.get(field, ""))
    m4c = _M4C_PROMPT.search(prompt)
    if m4c:
        return m4c[1].lower()
    lines = prompt.split("\n")
    return lines[1 if prompt.startswith("Reference OCR token:") and len(lines) > 1 else 0].lower()
