"""VizWiz: questions that blind people asked about their photos (Gurari et al. 2018, arXiv:1802.08218;
https://vizwiz.org).

Reads `val.json`: one question a picture, ten annotators, some of them unsure; all their answers count. A
question that cannot be answered has the answer `unanswerable`, which the prompt names.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field
from typing_extensions import override

from evals.answer_files.rows import Row
from evals.scoring.graders import grade_evalai
from evals.tasks.question_task import (
    ID_FIELDS,
    Question,
    QuestionConfig,
    QuestionTask,
    answers_as,
    need_answers,
    read_fields,
)

_NUMBER = re.compile(r"(\d+)(?:\.\w+)?$")


class Config(QuestionConfig):
    """VizWiz's annotation file."""

    prompt: str = Field(
        default="{question}\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n"
        "Answer the question using a single word or phrase.",
        description="what is asked; {question} stands for the question",
    )
    annotations: Path = Field(description="VizWiz annotations JSON with answers")


class VizWiz(QuestionTask[Config]):
    """See the module; kinds are VizWiz's answer types. A question's id is its picture."""

    label = "VizWiz"
    files = {"annotations": ("val.json", "*val*.json", "*.json")}
    grader = staticmethod(grade_evalai)
    answer_format = answers_as("VizWiz's results JSON [{image, answer}]")
    parser = "EvalAI's normaliser on answer and annotators, always; strict: an empty answer is worth 0"
    aggregation = "min(1, matches among the other annotators / 3), mean over annotators and questions"
    source = "VizWiz VQA (arXiv:1802.08218)"
    licence = "CC-BY-4.0"

    @override
    def question(self, row: Any, where: str) -> Question:
        image, text, answers = read_fields(row, ("image", "question", "answers"), where)
        texts = need_answers([read_fields(answer, ("answer",), where)[0] for answer in answers], where)
        kind = row.get("answer_type")
        return Question(
            id=str(image),
            image=str(image),
            text=str(text),
            reference={"answers": texts},
            label=max(texts, key=texts.count),
            kinds=(str(kind),) if kind else (),
        )

    @override
    def answered_id(self, row: Row) -> str:
        name = row.need_id(("image", *ID_FIELDS), self.answer_format)
        number = _NUMBER.search(name)
        return self._by_number.get(int(number[1]), name) if number else name

    @cached_property
    def _by_number(self) -> dict[int, str]:
        """The number at the end of a picture's name -> the name; some files of answers have it alone."""
        numbers = {question.id: _NUMBER.search(question.id) for question in self.questions()}
        return {int(number[1]): name for name, number in numbers.items() if number}


TASK = VizWiz
