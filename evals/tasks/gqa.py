"""GQA: compositional questions with one right answer (Hudson and Manning 2019, arXiv:1902.09506;
https://cs.stanford.edu/people/dorarad/gqa).

Reads the balanced question files of GQA (`testdev_balanced_questions.json`); images are `<imageId>.jpg`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field
from typing_extensions import override

from align.errors import AlignError
from align.objects.coco import read_json
from evals.scoring.graders import grade_gqa
from evals.tasks.question_task import Question, QuestionConfig, QuestionTask, answers_as, read_fields


class Config(QuestionConfig):
    """GQA's question file."""

    questions: Path = Field(description="GQA questions JSON with answers, such as testdev_balanced")
    file_name: str = Field(default="{image_id}.jpg", description="image file of an image id")


class Gqa(QuestionTask[Config]):
    """See the module; kinds are GQA's structural types (verify, query, choose, logical, compare)."""

    label = "GQA"
    files = {
        "questions": (
            "testdev_balanced_questions.json",
            "*balanced*questions*.json",
            "*questions*.json",
        )
    }
    grader = staticmethod(grade_gqa)
    answer_format = answers_as("GQA's predictions JSON [{questionId, prediction}]")
    parser = (
        "official: lower case, full stops taken off the end, then equal; strict: VQA's normalised words equal"
    )
    aggregation = "right answers / questions"
    source = "GQA (arXiv:1902.09506), balanced questions"
    licence = "CC-BY-4.0"

    @override
    @classmethod
    def locate(cls, data: Path) -> dict[str, Any]:
        """As `files` say; a single file is the questions, whatever it is called."""
        return super().locate(data) or ({"questions": data} if data.is_file() else {})

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


TASK = Gqa
