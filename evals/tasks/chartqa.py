"""ChartQA: questions about charts, relaxed accuracy (Masry et al. 2022, arXiv:2203.10244;
https://github.com/vis-nlp/ChartQA).

Reads `test_human.json` and `test_augmented.json`; papers print the mean of the two, which has both halves the
same weight. The files number nothing: a question's id here is its part and place, such as `human/0`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from typing_extensions import override

from align.errors import AlignError
from evals.answer_files.folder import find_file
from evals.answer_files.rows import OWN_FORMAT, Row, make_prediction, unknown_shape
from evals.protocol import AnswerSet
from evals.scoring.graders import grade_relaxed
from evals.tasks.question_task import ID_FIELDS, Question, QuestionConfig, QuestionTask, read_fields

Part = Literal["human", "augmented"]
PARTS: tuple[Part, ...] = ("human", "augmented")
ANSWER_FORMAT = (
    "[{imgname, query, prediction}] or the same as JSON lines, [{id, prediction}] with id human/0 or a "
    "running number (human first), [{answer, annotation}] in the order of the questions, or " + OWN_FORMAT
)
_IMAGE_FIELDS = ("imgname", "image", "image_name")
_QUERY_FIELDS = ("query", "question")
_LABEL_FIELDS = ("label", "annotation", "gt_answer", "target", "gt")


class Config(QuestionConfig):
    """ChartQA's question files."""

    prompt: str = Field(
        default="{question}\nAnswer the question with a single word.",
        description="what is asked; {question} stands for the question",
    )
    files: dict[Part, Path] = Field(min_length=1, description="part (human, augmented) -> ChartQA JSON")


class ChartQa(QuestionTask[Config]):
    """See the module; kinds are the two parts."""

    label = "ChartQA"
    metric = "relaxed_accuracy"
    description = "answers within 5 % of the number, or equal"
    grader = staticmethod(grade_relaxed)
    answer_format = ANSWER_FORMAT
    parser = (
        "official: pix2struct's relaxed correctness; strict: thousands' commas, signs and closing full stops "
        "read away, years exact"
    )
    aggregation = "right answers / questions, over both parts and each"
    source = "ChartQA (arXiv:2203.10244)"
    licence = "GPL-3.0 (annotations), for research"

    @override
    @classmethod
    def locate(cls, data: Path) -> dict[str, Any]:
        """The test files of both parts."""
        files = {part: find_file(data, f"test_{part}.json", f"*{part}*.json") for part in PARTS}
        found = {part: path for part, path in files.items() if path is not None}
        return {"files": found} if found else {}

    @override
    def inputs(self) -> dict[str, Path]:
        return {part: self.config.files[part] for part in PARTS if part in self.config.files}

    @override
    def questions(self) -> list[Question]:
        return [
            _question(part, number, row, where)
            for part, path in self.inputs().items()
            for number, (row, where) in enumerate(self.listed(path))
        ]

    @override
    def answers_in(self, rows: Sequence[Row]) -> AnswerSet:
        """By picture and question, else by id, else by line where every line's truth agrees."""
        questions = self.questions()
        joined = _join_content(rows, questions) or _join_ids(rows, questions) or _join_lines(rows, questions)
        return self.asked_in(
            [make_prediction(self.name, name, self.answered_text(row)) for row, name in joined]
        )


TASK = ChartQa


def _question(part: str, number: int, row: Any, where: str) -> Question:
    image, text, label = read_fields(row, ("imgname", "query", "label"), where)
    reference = {"answers": [str(label)]}
    return Question(f"{part}/{number}", str(image), str(text), reference, str(label), (part,))


def _join_content(rows: Sequence[Row], questions: Sequence[Question]) -> list[tuple[Row, str]] | None:
    """Rows that name picture and question; a question that both parts ask is answered for both."""
    if not all(row.first(_IMAGE_FIELDS) and row.first(_QUERY_FIELDS) for row in rows):
        return None
    ids: dict[tuple[str, str], list[str]] = {}
    for question in questions:
        ids.setdefault((Path(question.image or "").stem, _plain(question.text)), []).append(question.id)
    found: dict[str, Row] = {}
    for row in rows:
        key = (Path(str(row.first(_IMAGE_FIELDS))).stem, _plain(str(row.first(_QUERY_FIELDS))))
        for name in ids.get(key, [f"?{row.where}"]):
            found[name] = row
    return [(row, name) for name, row in found.items()]


def _join_ids(rows: Sequence[Row], questions: Sequence[Question]) -> list[tuple[Row, str]] | None:
    if any(row.first(ID_FIELDS) is None for row in rows):
        return None
    names = [row.need_id(ID_FIELDS, ANSWER_FORMAT) for row in rows]
    running = {str(number): question.id for number, question in enumerate(questions)}
    return [(row, running.get(name, name)) for row, name in zip(rows, names, strict=True)]


def _join_lines(rows: Sequence[Row], questions: Sequence[Question]) -> list[tuple[Row, str]]:
    if len(rows) != len(questions):
        raise unknown_shape(
            rows[0].where, f"{len(rows)} answers without ids for {len(questions)} questions", ANSWER_FORMAT
        )
    for row, question in zip(rows, questions, strict=True):
        label = row.first(_LABEL_FIELDS)
        if label is not None and str(label) != question.label:
            raise AlignError(
                f"the truth {str(label)!r} stands where {question.id} has {question.label!r}",
                where=row.where,
                fix=f"answers must follow the questions, or name them; expected {ANSWER_FORMAT}",
            )
    return [(row, question.id) for row, question in zip(rows, questions, strict=True)]


def _plain(text: str) -> str:
    """The question without the prompt's further lines, blanks and case."""
    return " ".join(text.partition("\n")[0].split()).casefold()
