"""One task's answers scored: by the score stage for a checkpoint, and by `align score TASK` for a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from align.errors import AlignError
from align.rows.schema import Prediction, Score
from evals.comparison.lines import Health
from evals.protocol import Sample
from evals.tasks.task import Task, index_samples


@dataclass(frozen=True)
class Scored:
    """One checkpoint's answers to one task: scores in the order of the samples, what went wrong, and what
    else a reader must know (see `Task.notes`)."""

    scores: list[Score]
    health: Health
    notes: dict[str, Any] = field(default_factory=dict)


def score_predictions(
    task: Task,
    predictions: Sequence[Prediction],
    where: str = "",
    samples: Sequence[Sample] | None = None,
    told: Mapping[str, Any] | None = None,
) -> Scored:
    """Score one task's predictions; failed requests are counted, not scored.

    Args:
        samples: those that were asked, all of the task's by default.
        told: verdicts that came with the answers, see `AnswerSet`.

    Raises:
        AlignError: a sample has no prediction or two, or a prediction has no sample.
    """
    asked = index_samples(task.samples() if samples is None else samples)
    answers = _index(predictions, asked, where)
    task.judge_answers(list(asked.values()), predictions, told or {})
    health = Health()
    scores = []
    for sample_id, sample in asked.items():
        prediction = answers[sample_id]
        score = task.score(sample, prediction) if prediction.text is not None else None
        health.add(prediction, score)
        if score is not None:
            scores.append(score)
    return Scored(task.combine(scores), health, task.notes())


def _index(
    predictions: Sequence[Prediction], samples: Mapping[str, Sample], where: str
) -> dict[str, Prediction]:
    answers = {prediction.sample_id: prediction for prediction in predictions}
    lacking, unknown = samples.keys() - answers.keys(), answers.keys() - samples.keys()
    if lacking or unknown or len(answers) != len(predictions):
        example = min(lacking or unknown or answers)
        raise AlignError(
            f"{len(predictions)} predictions for {len(samples)} samples: {len(lacking)} without an answer, "
            f"{len(unknown)} unknown, {len(predictions) - len(answers)} repeated (such as {example!r})",
            where=where,
            fix="run `align generate` again: annotations have changed since, or the run was not finished",
        )
    return answers
