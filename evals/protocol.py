"""What an evaluation is made of: a sample that is asked, a scorer's mark for an answer, metrics over marks.

Every metric is a ratio of sums of per-sample values (accuracy = right / asked, F1 = 2TP / (2TP + FP + FN)),
so that a bootstrap derives it again for each resample from per-cluster sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from align.rows.schema import Message, Prediction

Mode = Literal["official", "strict"]
Aim = Literal["invention", "probing", "ability", "truth", "form"]
"""What a number is about: what a model says of its own accord that is not there, whether it is fooled when
asked, how well it answers questions that alignment must not cost; beside a benchmark's own numbers, how much
of all that is said is true (numbers, places, each object once), and the form in which it is said (repetition,
grammar, length)."""
CAPTION_AIMS: tuple[Aim, ...] = ("truth", "form")
"""Of the measures of captions that no benchmark publishes, see `evals.scoring.caption_measures`."""
MODES: tuple[Mode, ...] = ("official", "strict")
MODE_PREFIXES: tuple[tuple[Mode, str], ...] = (("official", ""), ("strict", "strict_"))
"""Each mode, and what its values' names begin with."""


@dataclass(frozen=True)
class Sample:
    """One question to a model.

    Attributes:
        images: paths relative to `image_root`.
        cluster: the unit that is resampled; samples of one image share it.
        reference: what the scorer compares with, JSON-able.
        subsets: the named parts of the task that this sample belongs to (POPE's splits, VQA's kinds).
        meta: shown beside the answer in reports (question, label), JSON-able.
    """

    id: str
    images: list[str]
    image_root: Path
    messages: list[Message]
    max_tokens: int
    cluster: str
    reference: dict[str, Any]
    subsets: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """A ratio of weighted sums of per-sample values, over one subset, or its mean over several.

    Attributes:
        name: unique together with `split`.
        split: what tables call the part of the data, e.g. `test` or `adversarial`.
        numerator: value name -> weight; the numerator is the sum over samples of weight x value.
        denominator: likewise.
        higher_is_better: None where neither direction is better (a yes-ratio, a length).
        primary: enters the multiple-testing correction and the main table.
        scale: 100 for percentages, 1 for plain numbers; values and deltas are on this scale.
        subsets: empty for all samples; one name for that subset; several for the unweighted mean of
            the subsets' ratios.
        measures: where it is not what the task as a whole measures.
        points: the values are points on the benchmark's own scale, not shares.
    """

    name: str
    split: str
    numerator: Mapping[str, float]
    denominator: Mapping[str, float]
    higher_is_better: bool | None
    primary: bool = False
    scale: float = 100.0
    description: str = ""
    mode: Mode = "official"
    subsets: tuple[str, ...] = ()
    measures: Aim | None = None
    points: bool = False


class AnswerSet(NamedTuple):
    """What a file of answers holds.

    Attributes:
        samples: what it asked: the task's own samples, also those that it does not answer, or some that only
            the file has.
        predictions: what was answered; an answer to no sample keeps an id of its own.
        told: sample id -> verdicts (`align.judging.ask.Judgement`) that came with the answers.
    """

    samples: Sequence[Sample]
    predictions: Sequence[Prediction]
    told: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Card:
    """A task's protocol, printed in the report."""

    task: str
    type: str
    prompt: str
    parser: str
    split: str
    aggregation: str
    source: str
    licence: str
    mode: Mode
    cluster: str

    def to_json(self) -> dict[str, Any]:
        """The card as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Mark:
    """What a scorer makes of one answer: per-sample values, the parsed answer, notes for the report."""

    values: dict[str, float]
    parsed: Any
    meta: dict[str, Any] = field(default_factory=dict)
    unparsed: bool = False


@dataclass(frozen=True)
class Grade:
    """What an answer is worth, 0 to 1, and what each scorer read in it.

    Attributes:
        unparsed: the strict scorer could read no answer; such an answer is worth 0.
    """

    official: float
    strict: float
    parsed: Any
    parsed_strict: Any
    unparsed: bool = False
