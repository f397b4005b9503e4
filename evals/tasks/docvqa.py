"""DocVQA: questions about scanned documents, scored by ANLS (Mathew et al. 2021, arXiv:2007.00398;
https://www.docvqa.org).

Reads `val_v1.0_withQT.json` (or the older `val_v1.0.json`); images are relative to the folder of
`documents/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field
from typing_extensions import override

from evals.scoring.graders import grade_anls
from evals.tasks.question_task import (
    Question,
    QuestionConfig,
    QuestionTask,
    answers_as,
    need_answers,
    read_fields,
)


class Config(QuestionConfig):
    """DocVQA's annotation file."""

    max_tokens: int = Field(default=32, gt=0, description="longest answer in tokens")
    annotations: Path = Field(description="DocVQA annotations JSON with answers")


class DocVqa(QuestionTask[Config]):
    """See the module; kinds are DocVQA's question types, of which a question may have several."""

    label = "DocVQA"
    metric = "anls"
    description = "mean similarity to the nearest right answer"
    files = {"annotations": ("val_v1.0_withQT.json", "val_v1.0*.json", "*val*.json", "*.json")}
    section = "data"
    grader = staticmethod(grade_anls)
    answer_format = answers_as("DocVQA's results JSON [{questionId, answer}]")
    parser = (
        "lower case, single blanks; official divides by the length of the raw texts, strict by that of the "
        "compared ones"
    )
    aggregation = "ANLS, threshold 0.5: nearest right answer, mean over questions"
    source = "DocVQA (arXiv:2007.00398)"
    licence = "as the UCSF Industry Documents Library; annotations for research"

    @override
    def question(self, row: Any, where: str) -> Question:
        name, image, text, answers = read_fields(row, ("questionId", "image", "question", "answers"), where)
        texts = need_answers(answers, where)
        kinds = tuple(sorted({str(kind) for kind in row.get("question_types") or ()}))
        return Question(str(name), str(image), str(text), {"answers": texts}, texts[0], kinds)


TASK = DocVqa
