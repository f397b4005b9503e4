"""Tasks that a judge scores: how they ask it, and take its verdicts from a published file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from pydantic import Field
from typing_extensions import override

from align.errors import AlignError
from align.judging.ask import Judgements, JudgeSettings, agreement, ask_judge, summarise
from align.rows.schema import Message, Prediction
from evals.protocol import Sample
from evals.tasks.task import Task, TaskConfig


class JudgedConfig(TaskConfig):
    """A task's configuration with its judge."""

    judge: JudgeSettings | None = Field(
        default=None, description="who judges; not needed for published files that carry a judge's outputs"
    )


J = TypeVar("J", bound=JudgedConfig)


class JudgedTask(Task[J], Generic[J]):
    """A task whose `mark` reads `self.judgements`, which `judge_answers` fills.

    Attributes:
        wording: the judge's prompt with its placeholders.
        judgements: of the predictions judged last, by sample id.
        told: judgements that came with those.
    """

    wording: str

    def __init__(self, name: str, config: J) -> None:
        super().__init__(name, config)
        self.judge = config.judge
        self.judgements: Judgements = {}
        self.told: Judgements = {}

    @abstractmethod
    def judge_question(self, sample: Sample, text: str) -> Sequence[Message] | None:
        """What the judge is asked about an answer; None if it needs no judge."""

    @abstractmethod
    def read_verdict(self, reply: str) -> Any:
        """The verdict in a judge's reply, None if it is not of the closed set."""

    @override
    def judge_answers(
        self, samples: Sequence[Sample], predictions: Sequence[Prediction], told: Judgements
    ) -> None:
        """Ask the judge about every answer; without a judge, take the file's judgements.

        Raises:
            AlignError: there is neither, or the judge cannot be reached.
        """
        self.told = told
        answers = {row.sample_id: row.text for row in predictions if row.text is not None}
        questions = {
            sample.id: question
            for sample in samples
            if sample.id in answers
            and (self.judge is not None or sample.id not in self.told)
            and (question := self.judge_question(sample, answers[sample.id])) is not None
        }
        if questions and self.judge is None:
            raise AlignError(
                f"{len(questions)} answers need a judge, and there is none",
                where=f"{self.name}: such as {min(questions)}",
                fix="set judge.endpoint (any OpenAI-compatible server: --option judge.endpoint=http://host:8000/v1),"
                f" or give a file with a judge's outputs: {self.answer_format}",
            )
        asked: Judgements = {}
        if questions and self.judge is not None:
            asked = ask_judge(self.judge, questions, self.wording, self.read_verdict)
        self.judgements = {**{key: rows for key, rows in self.told.items() if key in answers}, **asked}

    @override
    def notes(self) -> dict[str, Any]:
        if not self.judgements:
            return {}
        found = {"judge": summarise(self.judgements)}
        if self.told and self.judge is not None:
            found["agreement_with_file"] = agreement(self.judgements, self.told)
        return found

    def judgement_meta(self, sample_id: str) -> dict[str, Any]:
        """What stands on a scored row about its judgements."""
        rows = self.judgements.get(sample_id, ())
        return {"judgements": [row.model_dump(exclude={"sample_id"}) for row in rows]} if rows else {}
