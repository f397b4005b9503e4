"""GQA: compositional questions with one right answer (Hudson and Manning 2019, arXiv:1902.09506;
https://cs.stanford.edu/people/dorarad/gqa).

Reads the balanced question files of GQA (`testdev_balanced_questions.json`); images are `<imageId>.jpg`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from typing_extensions import override

from align.errors import AlignError
from align.objects.coco import read_json
from evals.answer_files.folder import find_file
from evals.protocol import Card, Grade
from evals.scoring.graders import grade_gqa
from evals.tasks.question_task import Question, QuestionConfig, QuestionTask, answers_as, read_fields

ANSWER_FORMAT = answers_as("GQA's predictions JSON [{questionId, prediction}]")


class Config(QuestionConfig):
    """GQA's question file."""

    type: Literal["gqa"] = "gqa"
    questions: Path = Field(description="GQA questions JSON with answers, such as testdev_balanced")
    file_name: str = Field(default="{image_id}.jpg", description="image file of an image id")


class Gqa(QuestionTask[Config]):
    """See the module; kinds are GQA's structural types (verify, query, choose, logical, compare)."""

    type = "gqa"
    answer_format = ANSWER_FORMAT

    @override
    def inputs(self) -> dict[str, Path]:
        return {"questions": self.config.questions}

    @override
    def questions(self) -> list[Question]:
        path = self.config.questions
        tree = read_json(path)
        if not isinstance(tree, dict):
            raise AlignError("not GQA's map of question id to question", where=str(path))
        return [self._question(str(name), row, f"{path} key {name!r}") for name, row in tree.items()]

    def _question(self, name: str, row: Any, where: str) -> Question:
        text, image_id, answer = read_fields(row, ("question", "imageId", "answer"), where)
        types = row.get("types")
        kind = types.get("structural") if isinstance(types, dict) else None
        return Question(
            id=name,
            image=self.config.file_name.format(image_id=image_id),
            text=str(text),
            reference={"answers": [str(answer)]},
            label=str(answer),
            kinds=(str(kind),) if kind else (),
        )

    @override
    def grade(self, reference: Mapping[str, Any], text: str) -> Grade:
        return grade_gqa(reference["answers"], text)

    @property
    @override
    def card(self) -> Card:
        return Card(
            task=self.name,
            type=self.type,
            prompt=self.config.prompt,
            parser="official: lower case, full stops taken off the end, then equal; strict: VQA's normalised "
            "words equal",
            split=self.config.split,
            aggregation="right answers / questions",
            source="GQA (arXiv:1902.09506), balanced questions",
            licence="CC-BY-4.0",
            mode=self.config.primary_mode,
            cluster="image",
        )


def build(name: str, config: Config) -> Gqa:
    """The task of a recipe's section."""
    return Gqa(name, config)


def locate(data: Path) -> dict[str, Any]:
    """The balanced test-dev questions, else any balanced or other question file."""
    found = find_file(
        data, "testdev_balanced_questions.json", "*balanced*questions*.json", "*questions*.json"
    )
    if found is None and data.is_file():
        found = data
    return {"questions": found} if found is not None else {}
