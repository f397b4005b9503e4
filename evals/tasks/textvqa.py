"""TextVQA: questions about text in pictures (Singh et al. 2019, arXiv:1904.08920; https://textvqa.org).

Reads `TextVQA_0.5.1_val.json`. LLaVA's published numbers give the model OCR tokens with the question; its
file of prompts (`llava_textvqa_val_v051_ocr.jsonl`) can be named as `prompts` to ask exactly those.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field
from typing_extensions import override

from align.errors import AlignError
from align.rows.schema import Message
from evals.answer_files.rows import Row, read_answer_rows
from evals.protocol import Card, Sample
from evals.scoring.graders import grade_evalai
from evals.tasks.question_task import (
    Question,
    QuestionConfig,
    QuestionTask,
    answers_as,
    need_answers,
    read_fields,
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

    label = "TextVQA"
    files = {
        "annotations": ("TextVQA_0.5.1_val.json", "TextVQA*val*.json", "*val*.json", "*.json"),
        "prompts": (),
    }
    section = "data"
    grader = staticmethod(grade_evalai)
    answer_format = answers_as(
        "[{question_id, answer}]",
        "LLaVA's JSONL whose question_id is the image and whose prompt has the question",
    )
    parser = "EvalAI's normaliser on answer and annotators, always; strict: an empty answer is worth 0"
    aggregation = "min(1, matches among the other annotators / 3), mean over annotators and questions"
    source = "TextVQA 0.5.1 (arXiv:1904.08920)"
    licence = "CC-BY-4.0"

    @override
    def question(self, row: Any, where: str) -> Question:
        fields = ("question_id", "image_id", "question", "answers")
        name, image_id, text, answers = read_fields(row, fields, where)
        texts = need_answers(answers, where)
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
            found.append(replace(sample, messages=asked))
        return found

    @override
    def answered_id(self, row: Row) -> str:
        name = super().answered_id(row)
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
        prompts = self.config.prompts
        return super().card if prompts is None else replace(super().card, prompt=f"as in {prompts.name}")


TASK = TextVqa


def _question_in(row: Row, field: str) -> str:
    """The question that a LLaVA prompt asks, in lower case (llava/eval/eval_textvqa.py at c121f043)."""
    prompt = str(row.fields.get(field, ""))
    m4c = _M4C_PROMPT.search(prompt)
    if m4c:
        return m4c[1].lower()
    lines = prompt.split("\n")
    return lines[1 if prompt.startswith("Reference OCR token:") and len(lines) > 1 else 0].lower()
