"""A task: samples to ask, a parser, a score per answer, and metrics over the scores (`evals.protocol`).

A task is configured in a recipe under `tasks.<name>`, with `type` naming its file in `evals/tasks`; how one
is added stands in `evals/tasks/__init__.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import Field

from align.config.recipe import Strict
from align.errors import AlignError
from align.rows.schema import Prediction, Score
from evals.answer_files.folder import find_file
from evals.answer_files.rows import OWN_FORMAT, Row, is_own, own_predictions, read_answer_rows
from evals.protocol import Aim, AnswerSet, Card, Mark, Metric, Mode, Sample
from evals.tasks.facts import Facts


class TaskConfig(Strict):
    """What every task's section of a recipe has."""

    type: str = ""
    image_root: Path = Field(description="folder that the images' file names are relative to")
    prompt: str = Field(description="what the model is asked")
    max_tokens: int = Field(gt=0, description="longest answer in tokens")
    split: str = Field(default="test", description="name of the data split, as tables show it")
    primary_mode: Mode = Field(
        default="official",
        description="the scorer whose metrics are primary; the other one's are shown beside",
    )


C = TypeVar("C", bound=TaskConfig)


class Task(ABC, Generic[C]):
    """An evaluation. Subclasses name their samples, parser and metrics; `score` is the same for all.

    A prediction that is a failed request (`Prediction.error`) is never scored, only counted.

    Attributes:
        type: the name of its file, which recipes pick it by.
        label: what readers call it; the name that the recipe gives, where it is empty.
        facts: what else a report must know of it.
        files: key of the configuration -> names of the published file, the best first (patterns of
            `find_file`); none for a file that nobody publishes under a name.
        parser, aggregation, source, licence, cluster: of its `Card`.
        answer_format: the published answer files that `read_answers` takes, for help and errors.
        all_expected: whether a file of answers that lacks some is incomplete (a caption metric takes any
            pictures that the truth knows).
        measures: what its numbers are about, see `Aim`.
    """

    type: ClassVar[str]
    label: ClassVar[str] = ""
    facts: ClassVar[Facts] = Facts()
    files: ClassVar[Mapping[str, Sequence[str]]] = {}
    measures: Aim = "ability"
    parser: ClassVar[str] = ""
    aggregation: ClassVar[str] = ""
    source: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    cluster: ClassVar[str] = "image"
    answer_format: ClassVar[str] = OWN_FORMAT
    all_expected: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.type = cls.__module__.rpartition(".")[2]

    def __init__(self, name: str, config: C) -> None:
        self.name = name
        self.config = config
        self.image_root = config.image_root

    @classmethod
    def of(cls, name: str, config: C) -> Self:
        """The task of a recipe's section."""
        return cls(name, config)

    @classmethod
    def scoring(cls, metrics: Collection[str]) -> type[Task[Any]]:
        """The class whose scores have these metrics, where a type has several."""
        return cls

    @classmethod
    def locate(cls, data: Path) -> dict[str, Any]:
        """The configuration (key -> value) that a published data folder or file gives, by `files`."""
        found = {key: find_file(data, *names) for key, names in cls.files.items()}
        return {key: path for key, path in found.items() if path is not None}

    def inputs(self) -> dict[str, Path]:
        """The annotation files that samples are made from, for a stage's input digests."""
        found = {key: getattr(self.config, key) for key in self.files}
        return {key: path for key, path in found.items() if path is not None}

    @abstractmethod
    def samples(self) -> list[Sample]:
        """All samples, in a fixed order, ids unique, no question twice.

        Raises:
            AlignError: a missing or malformed annotation file, or nothing to ask.
        """

    @abstractmethod
    def parse(self, text: str) -> Any:
        """What the official scorer understands of an answer."""

    @abstractmethod
    def mark(self, sample: Sample, text: str) -> Mark:
        """Score one answer, in both modes."""

    @property
    @abstractmethod
    def metrics(self) -> Sequence[Metric]:
        """All metrics, the primary ones first."""

    @property
    def card(self) -> Card:
        """The protocol."""
        return Card(
            task=self.name,
            type=self.type,
            prompt=self.config.prompt,
            parser=self.parser,
            split=self.config.split,
            aggregation=self.aggregation,
            source=self.source,
            licence=self.licence,
            mode=self.config.primary_mode,
            cluster=self.cluster,
        )

    def metrics_of(self, parts: Collection[str]) -> Sequence[Metric]:
        """The metrics of a file that asks only these parts (`Sample.subsets`)."""
        return [metric for metric in self.metrics if set(parts).issuperset(metric.subsets)]

    def card_of(self, parts: Collection[str]) -> Card:
        """The protocol of a file that asks only these parts."""
        return self.card

    def samples_of(self, ids: Collection[str]) -> list[Sample]:
        """The samples of these ids, in the order of `samples`; unknown ids have none."""
        return [sample for sample in self.samples() if sample.id in ids]

    def prepare(self) -> None:
        """Make ready what asking needs and scoring doesn't: pictures that lie inside an annotation file.

        Raises:
            AlignError: a picture that is damaged.
        """
        return None

    def read_answers(self, path: Path) -> AnswerSet:
        """Somebody's answers from a file in one of the formats of `answer_format`, and what it asked.

        Nothing of the task changes by it: two files can be read one after the other.

        Raises:
            AlignError: unreadable, or in another format; says what was expected.
        """
        rows = self.answer_rows(path)
        if is_own(rows):
            return self.asked_in(own_predictions(rows, self.name))
        return self.answers_in(rows)

    def answer_rows(self, path: Path) -> list[Row]:
        """The rows of an answer file."""
        return read_answer_rows(path, self.answer_format)

    def answers_in(self, rows: Sequence[Row]) -> AnswerSet:
        """The answers in rows that others published; none are known by default.

        Raises:
            AlignError: in another format; says what was expected.
        """
        raise AlignError(
            "not a known answer format", where=rows[0].where, fix=f"expected {self.answer_format}"
        )

    def asked_in(self, predictions: Sequence[Prediction], told: Mapping[str, Any] | None = None) -> AnswerSet:
        """The answers with the task's own samples: all, or where any picture may be described, those."""
        ids = {prediction.sample_id for prediction in predictions}
        samples = self.samples_of(ids) if not self.all_expected else self.samples()
        return AnswerSet(samples, list(predictions), told or {})

    def judge_answers(
        self, samples: Sequence[Sample], predictions: Sequence[Prediction], told: Mapping[str, Any]
    ) -> None:
        """What must be known of all answers before any is scored: a judge's verdicts. Nothing by default.

        Args:
            told: `AnswerSet.told`.
        """

    def notes(self) -> dict[str, Any]:
        """What a reader of the numbers must know besides: who judged, with how many tokens."""
        return {}

    def combine(self, scores: Sequence[Score]) -> list[Score]:
        """Scores with the values that belong to a group of answers (a pair, a figure) added, each group's on
        its first score and 0 on the others. A group with an answer missing counts nowhere."""
        return list(scores)

    def published(self, scores: Sequence[Score]) -> dict[str, dict[str, float]]:
        """Numbers as the benchmark's own script prints them, where rounding or a constant in a denominator
        keeps them from being plain ratios: split ("" for the whole) -> metric -> value."""
        return {}

    def score(self, sample: Sample, prediction: Prediction) -> Score:
        """Score a prediction; `meta` carries what a reader needs to judge it by eye.

        Raises:
            ValueError: the prediction is a failed request, or another sample's.
        """
        if prediction.text is None or prediction.sample_id != sample.id:
            raise ValueError(
                f"not an answer to {self.name}/{sample.id}: {prediction.sample_id} {prediction.error}"
            )
        mark = self.mark(sample, prediction.text)
        meta = {
            **sample.meta,
            "image": sample.images[0] if sample.images else "",
            "subsets": list(sample.subsets),
            "text": prediction.text,
            **({"reasoning": prediction.reasoning} if prediction.reasoning else {}),
            "finish_reason": prediction.finish_reason,
            "num_tokens": prediction.num_tokens,
            "unparsed": mark.unparsed,
            **mark.meta,
        }
        return Score(
            task=self.name,
            sample_id=sample.id,
            cluster=sample.cluster,
            parsed=mark.parsed,
            values=mark.values,
            meta=meta,
        )


def make_samples(rows: Iterable[Any], make: Callable[[Any], Sample], what: str, path: Path) -> list[Sample]:
    """A benchmark file's rows as samples.

    Args:
        make: makes one sample of one row.
        what: what the file should be, for the message: `MMHal's template`.

    Raises:
        AlignError: a row that is not such a file's, or no row at all.
    """
    try:
        found = [make(row) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise AlignError(f"not {what}: {error}", where=str(path)) from error
    if not found:
        raise AlignError("no questions", where=str(path))
    return found


def index_samples(samples: Iterable[Sample]) -> dict[str, Sample]:
    """Samples by id.

    Raises:
        AlignError: an id occurs twice.
    """
    found: dict[str, Sample] = {}
    for sample in samples:
        if sample.id in found:
            raise AlignError(
                f"duplicate sample id {sample.id!r}", fix="ids in an annotation file must be unique"
            )
        found[sample.id] = sample
    return found
