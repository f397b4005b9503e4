"""VQAv2: accuracy against ten annotators (Goyal et al. 2017, arXiv:1612.00837;
https://github.com/GT-Vision-Lab/VQA).

Reads VQAv2's question and annotation files. `official` is VQAEval: answers are normalised only where
the annotators disagree, so that a `Yes` scores 0 where ten of them said `yes`. `strict` normalises always.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from typing_extensions import override

from align.errors import AlignError
from align.objects.coco import read_json
from align.scoring.normalise import clean
from evals.scoring.graders import grade_vqa
from evals.tasks.facts import Facts
from evals.tasks.question_task import Question, QuestionConfig, QuestionTask, answers_as

ALIASES = {"vqav2": "VQAv2"}
"""Another name of the type -> what readers call the benchmark under it."""


class Config(QuestionConfig):
    """VQAv2-format files."""

    questions: Path = Field(description="VQAv2 questions JSON")
    annotations: Path = Field(description="VQAv2 annotations JSON of the same questions")
    file_name: str = Field(
        default="COCO_val2014_{image_id:012d}.jpg", description="image file of an image id"
    )
    kinds: Literal["question_type", "answer_type"] = Field(
        default="question_type", description="what tables list apart; papers list answer types"
    )


class Vqa(QuestionTask[Config]):
    """See the module."""

    label = "VQA"
    facts = Facts(
        named="beside others",
        by_kind="accuracy",
        tiles={"accuracy": "visual questions answered right"},
    )
    files = {
        "questions": ("*questions*val*.json", "*val*questions.json", "*questions*.json"),
        "annotations": ("*val*annotations.json", "*annotations*.json"),
    }
    grader = staticmethod(grade_vqa)
    answer_format = answers_as("VQAv2's results JSON [{question_id, answer}]")
    parser = "official: VQAEval, normalised only where annotators disagree; strict: always normalised"
    aggregation = "min(1, matches among the other annotators / 3), mean over annotators and questions"
    source = "VQAv2 format (arXiv:1612.00837)"
    licence = "CC-BY-4.0 (VQAv2 annotations), if those are used"

    @override
    @classmethod
    def locate(cls, data: Path) -> dict[str, Any]:
        """Questions and annotations of the validation split; kinds are answer types, as papers list them."""
        return {"kinds": "answer_type"} | super().locate(data)

    @override
    def questions(self) -> list[Question]:
        pairs = _read_pairs(self.config.questions, self.config.annotations, self.config.kinds)
        return [self._question(*pair) for pair in pairs]

    def _question(self, question: dict[str, Any], annotation: dict[str, Any]) -> Question:
        answers = [clean(str(item["answer"])) for item in annotation["answers"]]
        return Question(
            id=str(question["question_id"]),
            image=self.config.file_name.format(image_id=int(question["image_id"])),
            text=str(question["question"]),
            reference={"answers": answers},
            label=max(answers, key=answers.count),
            kinds=(str(annotation[self.config.kinds]),),
        )

    @override
    def parse(self, text: str) -> str:
        return clean(text)


TASK = Vqa


def _read_pairs(
    questions: Path, annotations: Path, kinds: str
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Questions in file order, each with its annotation."""
    asked, known = read_json(questions), read_json(annotations)
    try:
        by_id = {item["question_id"]: item for item in known["annotations"]}
        if len({item["question_id"] for item in asked["questions"]}) != len(asked["questions"]):
            raise AlignError("a question_id occurs twice", where=str(questions))
        pairs = [(item, by_id[item["question_id"]]) for item in asked["questions"]]
        for question, annotation in pairs:
            if not annotation["answers"] or {"question", "image_id"} - question.keys():
                raise KeyError(f"question {question['question_id']}")
            annotation[kinds]
    except (KeyError, TypeError) as error:
        raise AlignError(
            f"not VQAv2's format, or an unknown question: {error}", where=str(annotations)
        ) from error
    return pairs
