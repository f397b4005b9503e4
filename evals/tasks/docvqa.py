"""DocVQA: questions about scanned documents, scored by ANLS (Mathew et al. 2021, arXiv:2007.00398;
https://www.docvqa.org).

Reads `val_v1.0_withQT.json` (or the older `val_v1.0.json`); images are relative to the folder of
`documents/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from typing_extensions import override

from align.errors import AlignError
from align.objects.coco import load_section
from evals.answer_files.folder import find_file
from evals.protocol import Card, Grade
from evals.scoring.graders import grade_anls
from evals.tasks.question_task import Question, QuestionConfig, QuestionTask, answers_as, read_fields

ANSWER_FORMAT = answers_as("DocVQA's results JSON [{questionId, answer}]")


class Config(QuestionConfig):
    """DocVQA's annotation file."""

    type: Literal["docvqa"] = "docvqa"
    max_tokens: int = Field(default=32, gt=0, description="longest answer in tokens")
    annotations: Path = Field(description="DocVQA annotations JSON with answers")


class DocVqa(QuestionTask[Config]):
    """See the module; kinds are DocVQA's question types, of which a question may have several."""

    type = "docvqa"
    metric = "anls"
    description = "mean similarity to the nearest right answer"
    answer_format = ANSWER_FORMAT

    @override
    def inputs(self) -> dict[str, Path]:
        return {"annotations": self.config.annotations}

    @override
    def questions(self) -> list[Question]:
        path = self.config.annotations
        return [
            _question(row, f"{path} data[{number}]") for number, row in enumerate(load_section(path, "data"))
        ]

    @override
    def grade(self, reference: Mapping[str, Any], text: str) -> Grade:
        return grade_anls(reference["answers"], text)

    @property
    @override
    def card(self) -> Card:
        return Card(
            task=self.name,
            type=self.type,
            prompt=self.config.prompt,
            parser="lower case, single blanks; official divides by the length of the raw texts, strict by "
            "that of the compared ones",
            split=self.config.split,
            aggregation="ANLS, threshold 0.5: nearest right answer, mean over questions",
            source="DocVQA (arXiv:2007.00398)",
            licence="as the UCSF Industry Documents Library; annotations for research",
            mode=self.config.primary_mode,
            cluster="image",
        )


def build(name: str, config: Config) -> DocVqa:
    """The task of a recipe's section."""
    return DocVqa(name, config)


def locate(data: Path) -> dict[str, Any]:
    """The validation annotations."""
    found = find_file(data, "val_v1.0_withQT.json", "val_v1.0*.json", "*val*.json", "*.json")
    return {"annotations": found} if found is not None else {}


def _question(row: Any, where: str) -> Question:
    name, image, text, answers = read_fields(row, ("questionId", "image", "question", "answers"), where)
    if not isinstance(answers, list) or not answers:
        raise AlignError("no answers to this question", where=where, fix="use a split with answers")
    texts = [str(answer) for answer in answers]
    kinds = tuple(sorted({str(kind) for kind in row.get("question_types") or ()}))
    return Question(str(name), str(image), str(text), {"answers": texts}, texts[0], kinds)
