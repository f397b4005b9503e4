"""Tasks that ask one question about one picture and grade every answer by itself: what they have in common.

A subclass makes a question of a published row and names the grader; samples, metrics over all questions and
over their kinds, and answer files come from here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import Field, field_validator
from typing_extensions import override

from align.errors import AlignError
from align.objects.coco import load_section, read_json
from align.rows.schema import Message
from align.scoring.vqa_accuracy import SHORT_ANSWER
from evals.answer_files.rows import OWN_FORMAT, TEXT_FIELDS, Row, answer_text, make_prediction
from evals.protocol import AnswerSet, Grade, Mark, Metric, Mode, Sample
from evals.scoring.graders import Grader
from evals.tasks.task import Task, TaskConfig

ID_FIELDS = ("question_id", "questionId", "sample_id", "id", "index", "qid")
_MODES: tuple[Mode, ...] = ("official", "strict")


class QuestionConfig(TaskConfig):
    """What all of these tasks have."""

    prompt: str = Field(default=SHORT_ANSWER, description="what is asked; {question} stands for the question")
    max_tokens: int = Field(default=16, gt=0, description="longest answer in tokens")
    num_questions: int | None = Field(default=None, gt=0, description="questions to sample; all if not set")
    seed: int = Field(default=0, ge=0, description="picks the questions")

    @field_validator("prompt")
    @classmethod
    def _has_question(cls, prompt: str) -> str:
        if "{question}" not in prompt:
            raise ValueError("must contain {question}")
        return prompt


@dataclass(frozen=True)
class Question:
    """A question of a benchmark.

    Attributes:
        image: relative to the task's image root; None for a question about no picture.
        text: what {question} in the prompt stands for.
        reference: what `QuestionTask.grade` compares with, JSON-able.
        label: the right answer, as reports show it.
        kinds: the parts of the benchmark that the question belongs to.
        cluster: the unit that is resampled; the image by default.
    """

    id: str
    image: str | None
    text: str
    reference: dict[str, Any]
    label: str
    kinds: tuple[str, ...] = ()
    cluster: str = ""


C = TypeVar("C", bound=QuestionConfig)


class QuestionTask(Task[C], Generic[C]):
    """See the module. Values of a sample: n (1), the metric, and the metric with the prefix `strict_`.

    Attributes:
        metric: name of the mean grade, as the benchmark's paper calls it.
        description: of the metric, a few words.
        grader: what an answer is worth against `reference["answers"]`, see `evals.scoring.graders`.
        section: key of the published file's list of rows; none where the file is that list.
    """

    metric: str = "accuracy"
    description: str = "right answers, all questions"
    grader: ClassVar[Grader]
    section: ClassVar[str] = ""

    def __init__(self, name: str, config: C) -> None:
        super().__init__(name, config)
        self._kinds: tuple[str, ...] | None = None

    def questions(self) -> list[Question]:
        """All questions, in the file's order, ids unique; by default a row of the first of `files` each.

        Raises:
            AlignError: a missing or malformed file; names it.
        """
        return [self.question(row, where) for row, where in self.listed(next(iter(self.inputs().values())))]

    def question(self, row: Any, where: str) -> Question:
        """The question of a published row; not needed where `questions` reads in another way.

        Raises:
            AlignError: it lacks something; `where` names it.
        """
        raise NotImplementedError

    def listed(self, path: Path) -> Iterator[tuple[Any, str]]:
        """The rows of a published file, each with where it stands.

        Raises:
            AlignError: unreadable, or no such list.
        """
        rows = load_section(path, self.section) if self.section else read_json(path)
        if not isinstance(rows, list):
            raise AlignError(f"not {self.label}'s list of questions", where=str(path))
        for number, row in enumerate(rows):
            yield row, f"{path} {self.section}[{number}]" if self.section else f"{path} item {number}"

    def grade(self, reference: Mapping[str, Any], text: str) -> Grade:
        """Grade one answer."""
        return type(self).grader(reference["answers"], text)

    @override
    def samples(self) -> list[Sample]:
        found, limit = self.questions(), self.config.num_questions
        units = list(dict.fromkeys(map(self.unit, found)))
        if limit is not None and limit < len(units):
            kept = set(random.Random(self.config.seed).sample(units, limit))
            found = [question for question in found if self.unit(question) in kept]
        if not found:
            raise AlignError("no questions", where=", ".join(map(str, self.inputs().values())))
        return [self._sample(question) for question in found]

    def unit(self, question: Question) -> str:
        """What `num_questions` counts: questions that share a unit are asked together or not at all."""
        return question.id

    def _sample(self, question: Question) -> Sample:
        prompt = self.config.prompt.replace("{question}", question.text)
        return Sample(
            id=question.id,
            images=[] if question.image is None else [question.image],
            image_root=self.image_root,
            messages=[Message(role="user", content=prompt)],
            max_tokens=self.config.max_tokens,
            cluster=question.cluster or question.image or question.id,
            reference=question.reference,
            subsets=question.kinds,
            meta={
                "question": question.text,
                "label": question.label,
                **({"kind": question.kinds[0]} if question.kinds else {}),
            },
        )

    @override
    def parse(self, text: str) -> str:
        return text.strip()

    @override
    def mark(self, sample: Sample, text: str) -> Mark:
        grade = self.grade(sample.reference, text)
        values = {"n": 1.0, self.metric: grade.official, f"strict_{self.metric}": grade.strict}
        return Mark(values, grade.parsed, {"parsed_strict": grade.parsed_strict}, unparsed=grade.unparsed)

    @property
    @override
    def metrics(self) -> Sequence[Metric]:
        kinds, split = self.kinds, self.config.split
        found = []
        for mode in sorted(_MODES, key=lambda mode: mode != self.config.primary_mode):
            found.append(self.ratio(mode, split, (), self.description))
            if len(kinds) > 1:
                found.append(self.ratio(mode, f"{split}/mean of kinds", kinds, "unweighted mean over kinds"))
            found += [self.ratio(mode, f"{split}/{kind}", (kind,), kind) for kind in kinds]
        return found

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of question that are asked, sorted; reads the annotations once."""
        if self._kinds is None:
            self._kinds = tuple(sorted({kind for sample in self.samples() for kind in sample.subsets}))
        return self._kinds

    def ratio(self, mode: Mode, split: str, subsets: tuple[str, ...], description: str) -> Metric:
        """The mean grade over some kinds of questions, or over all."""
        return Metric(
            name=self.metric if mode == "official" else f"{self.metric}_strict",
            split=split,
            numerator={self.metric if mode == "official" else f"strict_{self.metric}": 1},
            denominator={"n": 1},
            higher_is_better=True,
            primary=not subsets and mode == self.config.primary_mode,
            description=description,
            mode=mode,
            subsets=subsets,
        )

    @override
    def answers_in(self, rows: Sequence[Row]) -> AnswerSet:
        found = [make_prediction(self.name, self.answered_id(row), self.answered_text(row)) for row in rows]
        return self.asked_in(found)

    def answered_id(self, row: Row) -> str:
        """The question that a row answers."""
        return row.need_id(ID_FIELDS, self.answer_format)

    def answered_text(self, row: Row) -> str | None:
        """The answer in a row."""
        return answer_text(row.need(TEXT_FIELDS, self.answer_format), row.where)


def answers_as(*shapes: str) -> str:
    """How help and errors name the answer files of a task."""
    return "; ".join([*shapes, "LLaVA's JSONL {question_id, text}", OWN_FORMAT])


def need_answers(answers: Any, where: str) -> list[str]:
    """The right answers to a question, as texts.

    Raises:
        AlignError: there are none.
    """
    if not isinstance(answers, list) or not answers:
        raise AlignError("no answers to this question", where=where, fix="use a split with answers")
    return [str(answer) for answer in answers]


def read_fields(row: Any, names: Sequence[str], where: str) -> list[Any]:
    """These fields of an annotation, in order.

    Raises:
        AlignError: the annotation is no object, or lacks one.
    """
    missing = [name for name in names if not isinstance(row, Mapping) or name not in row]
    if missing:
        raise AlignError(
            f"missing field {missing[0]!r}", where=where, fix="name the file as it was published"
        )
    return [row[name] for name in names]
