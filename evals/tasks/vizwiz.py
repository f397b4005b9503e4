"""VizWiz: questions that blind people asked about their photos (Gurari et al. 2018, arXiv:1802.08218;
https://vizwiz.org).

Reads `val.json`: one question a picture, ten annotators, some of them unsure; all their answers count. A
question that cannot be answered has the answer `unanswerable`, which the prompt names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from typing_extensions import override

from align.errors import AlignError
from align.objects.coco import read_json
from evals.answer_files.folder import find_file
from evals.answer_files.rows import Row
from evals.protocol import Card, Grade
from evals.scoring.graders import grade_evalai
from evals.tasks.question_task import (
    ID_FIELDS,
    Question,
    QuestionConfig,
    QuestionTask,
    answers_as,
    read_fields,
)

ANSWER_FORMAT = answers_as("VizWiz's results JSON [{image, answer}]")
_NUMBER = re.compile(r"(\d+)(?:\.\w+)?$")


class Config(QuestionConfig):
    """VizWiz's annotation file."""

    type: Literal["vizwiz"] = "vizwiz"
    prompt: str = Field(
        default="{question}\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n"
        "Answer the question using a single word or phrase.",
        description="what is asked; {question} stands for the question",
    )
    annotations: Path = Field(description="VizWiz annotations JSON with answers")


class VizWiz(QuestionTask[Config]):
    """See the module; kinds are VizWiz's answer types. A question's id is its picture."""

    type = "vizwiz"
    answer_format = ANSWER_FORMAT

    @override
    def inputs(self) -> dict[str, Path]:
        return {"annotations": self.config.annotations}

    @override
    def questions(self) -> list[Question]:
        path = self.config.annotations
        rows = read_json(path)
        if not isinstance(rows, list):
            raise AlignError("not VizWiz's list of questions", where=str(path))
        return [_question(row, f"{path} item {number}") for number, row in enumerate(rows)]

    @override
    def grade(self, reference: Mapping[str, Any], text: str) -> Grade:
        return grade_evalai(reference["answers"], text)

    @override
    def answered_id(self, row: Row) -> str:
        name = row.need_id(("image", *ID_FIELDS), ANSWER_FORMAT)
        number = _NUMBER.search(name)
        return self._by_number.get(int(number[1]), name) if number else name

    @cached_property
    def _by_number(self) -> dict[int, str]:
        """The number at the end of a picture's name -> the name; some files of answers have it alone."""
        numbers = {question.id: _NUMBER.search(question.id) for question in self.questions()}
        return {int(number[1]): name for name, number in numbers.items() if number}

    @property
    @override
    def card(self) -> Card:
        return Card(
            task=self.name,
            type=self.type,
            prompt=self.config.prompt,
            parser="EvalAI's normaliser on answer and annotators, always; strict: an empty answer is worth 0",
            split=self.config.split,
            aggregation="min(1, matches among the other annotators / 3), mean over annotators and questions",
            source="VizWiz VQA (arXiv:1802.08218)",
            licence="CC-BY-4.0",
            mode=self.config.primary_mode,
            cluster="image",
        )


def build(name: str, config: Config) -> VizWiz:
    """The task of a recipe's section."""
    return VizWiz(name, config)


def locate(data: Path) -> dict[str, Any]:
    """The validation annotations."""
    found = find_file(data, "val.json", "*val*.json", "*.json")
    return {"annotations": found} if found is not None else {}


def _question(row: Any, where: str) -> Question:
    image, text, answers = read_fields(row, ("image", "question", "answers"), where)
    texts = [str(read_fields(answer, ("answer",), where)[0]) for answer in answers]
    if not texts:
        raise AlignError("no answers to this question", where=where, fix="use a split with answers")
    kind = row.get("answer_type")
    return Question(
        id=str(image),
        image=str(image),
        text=str(text),
        reference={"answers": texts},
        label=max(texts, key=texts.count),
        kinds=(str(kind),) if kind else (),
    )
