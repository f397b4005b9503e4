"""Your own questions: JSON lines of `{id, image, question, answer | answers | objects}` and a metric by name.

`answers` are all right (or all annotators, for vqa_accuracy and textvqa_accuracy), `answer` is the only one;
`objects` are what is in the picture, for `chair`, whose question may be left out: names, or names with how
many there are (`{"dog": 2}`). `image` may be left out too. The metrics are those of `evals.scoring.graders`,
`yes_no` (F1 and its company), `chair`, and `captions`: the form of captions (repetition, grammar, length) of
pictures about which nothing is known; a file of captions can be its own file of questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator
from typing_extensions import override

from align.claims import PictureTruth
from align.config.recipe import nearest
from align.errors import AlignError
from align.objects.mentions import MODES, find_objects
from align.rows.schema import Message
from evals.answer_files.folder import find_file
from evals.answer_files.rows import Row, answer_text, make_prediction, read_answer_rows
from evals.protocol import AnswerSet, Card, Grade, Mark, Metric, Mode, Sample
from evals.scoring.caption_measures import caption_meta, caption_metrics, caption_values
from evals.scoring.graders import GRADERS
from evals.scoring.yes_no import parse_official, parse_strict, yes_no_metrics, yes_no_values
from evals.tasks import chair, pope
from evals.tasks.facts import Facts
from evals.tasks.question_task import (
    ID_FIELDS,
    SHORT_ANSWER,
    TEXT_FIELDS,
    Question,
    QuestionConfig,
    QuestionTask,
    answers_as,
)
from evals.tasks.task import Task

ANSWER_FORMAT = answers_as("[{id, answer}] or the same as JSON lines")
METRICS = (*GRADERS, "captions", "chair", "yes_no")
_SHAPE = "JSON lines of {id, image, question, answer | answers | objects}, and perhaps kind"


class Config(QuestionConfig):
    """A user's own file."""

    prompt: str = Field(
        default=SHORT_ANSWER,
        description="what is asked; {question} stands for the question, which chair asks as it is",
    )
    max_tokens: int = Field(default=0, ge=0, description="longest answer in tokens; 0: 16, of captions 512")
    path: Path = Field(description=f"your questions: {_SHAPE}")
    metric: str = Field(default="exact_match", description=f"one of: {', '.join(METRICS)}")

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"no such metric{nearest(metric, METRICS)}")
        return metric

    @model_validator(mode="after")
    def _longest(self) -> Config:
        self.max_tokens = self.max_tokens or (512 if self.metric in ("captions", "chair") else 16)
        return self


class Custom(QuestionTask[Config]):
    """Questions with right answers; the metric has the name that the recipe gives."""

    facts = Facts(is_own=True)
    answer_format = ANSWER_FORMAT

    def __init__(self, name: str, config: Config) -> None:
        super().__init__(name, config)
        self.metric = config.metric

    @override
    @classmethod
    def of(cls, name: str, config: Config) -> Task[Any]:
        """By its metric."""
        kinds = {"captions": PlainCaptions, "chair": CustomCaptions, "yes_no": CustomYesNo}
        return kinds.get(config.metric, Custom)(name, config)

    @override
    @classmethod
    def scoring(cls, metrics: Collection[str]) -> type[Task[Any]]:
        if "chair_i" in metrics:
            return CustomCaptions
        return CustomYesNo if "yes_ratio" in metrics else Custom

    @override
    @classmethod
    def locate(cls, data: Path) -> dict[str, Any]:
        """Your file; pictures are looked for beside it."""
        path = data if data.is_file() else find_file(data, "*.jsonl", "*.json")
        return {"path": path, "image_root": path.parent} if path is not None else {}

    @override
    def inputs(self) -> dict[str, Path]:
        return {"path": self.config.path}

    @override
    def questions(self) -> list[Question]:
        return [_question(row) for row in read_answer_rows(self.config.path, _SHAPE)]

    @override
    def grade(self, reference: Mapping[str, Any], text: str) -> Grade:
        return GRADERS[self.config.metric](reference["answers"], text)

    @property
    @override
    def card(self) -> Card:
        return _card(self.name, self.config, f"{self.config.metric}, see evals/scoring/graders.py")


class CustomYesNo(Custom):
    """Yes-or-no questions. Values as POPE's: n, tp, fp, tn, fn, and the same with the prefix `strict_`."""

    label = pope.Pope.label
    facts = replace(pope.Pope.facts, kind="pope")
    measures = "probing"

    @override
    def grade(self, reference: Mapping[str, Any], text: str) -> Grade:
        official, strict, label = parse_official(text), parse_strict(text), reference["answers"][0]
        return Grade(float(official == label), float(strict == label), official, strict, strict is None)

    @override
    def questions(self) -> list[Question]:
        found = super().questions()
        for question in found:
            answers = question.reference["answers"]
            answers[:] = [answer.strip().lower() for answer in answers]
            if len(answers) != 1 or answers[0] not in ("yes", "no"):
                raise AlignError(
                    f"question {question.id!r} has the answers {answers}",
                    where=str(self.config.path),
                    fix="the metric yes_no wants exactly one answer, yes or no",
                )
        return found

    @override
    def mark(self, sample: Sample, text: str) -> Mark:
        mark, label = super().mark(sample, text), sample.reference["answers"][0]
        values = yes_no_values(label, parse_official(text), parse_strict(text))
        return Mark(values, mark.parsed, mark.meta, mark.unparsed)

    @property
    @override
    def metrics(self) -> Sequence[Metric]:
        primary = self.config.primary_mode
        order: tuple[Mode, ...] = ("official", "strict") if primary == "official" else ("strict", "official")
        return [metric for mode in order for metric in yes_no_metrics(mode, self.config.split, (), primary)]


class CustomCaptions(chair.Chair):
    """Captions of pictures whose objects you know, scored as CHAIR does and asked for in its words where the
    file asks nothing."""

    facts = replace(chair.Chair.facts, kind="chair")
    answer_format = ANSWER_FORMAT
    id_fields: tuple[str, ...] = ID_FIELDS

    def __init__(self, name: str, config: Config) -> None:
        shared = {key: getattr(config, key) for key in ("image_root", "max_tokens", "split", "primary_mode")}
        super().__init__(name, chair.Config(**shared, objects=config.path))
        self._custom = config

    @override
    def inputs(self) -> dict[str, Path]:
        return {"path": self._custom.path}

    @override
    def samples(self) -> list[Sample]:
        return [self._asked(row) for row in read_answer_rows(self._custom.path, _SHAPE)]

    def _asked(self, row: Row) -> Sample:
        name, image = self._name(row), row.fields.get("image")
        question = str(row.fields.get("question") or self.config.prompt)
        truth = self.reference_of(row)
        return Sample(
            id=name,
            images=[str(image)] if image else [],
            image_root=self.image_root,
            messages=[Message(role="user", content=question)],
            max_tokens=self._custom.max_tokens,
            cluster=str(image or name),
            reference=truth,
            meta={"question": question, "label": truth[self._custom.primary_mode]},
        )

    @override
    def samples_of(self, ids: Collection[str]) -> list[Sample]:
        return [sample for sample in self.samples() if sample.id in ids]

    @override
    def picture_of(self, sample: Sample) -> PictureTruth:
        return _picture(sample.reference)

    @override
    def pictures(self) -> Collection[PictureTruth]:
        return [_picture(sample.reference) for sample in self.samples()]

    @override
    def answers_in(self, rows: Sequence[Row]) -> AnswerSet:
        found = [
            make_prediction(
                self.name, self._name(row), answer_text(row.need(TEXT_FIELDS, ANSWER_FORMAT), row.where)
            )
            for row in rows
        ]
        return self.asked_in(found)

    def reference_of(self, row: Row) -> dict[str, Any]:
        """What a row says of its picture: objects a mode and, under `counts`, how many of each."""
        return _objects(row)

    def _name(self, row: Row) -> str:
        return row.need_id(self.id_fields, ANSWER_FORMAT)

    @property
    @override
    def card(self) -> Card:
        return _card(self.name, self._custom, super().card.parser)


class PlainCaptions(CustomCaptions):
    """Captions of pictures about which nothing is known: repetition, grammar and length."""

    label = ""
    facts = Custom.facts
    measures = "form"
    id_fields = (*ID_FIELDS, "image_id", "image", "file_name")

    @override
    def reference_of(self, row: Row) -> dict[str, Any]:
        return {mode: [] for mode in MODES}

    @override
    def mark(self, sample: Sample, text: str) -> Mark:
        meta = caption_meta(text, None)
        return Mark(caption_values(text, None), meta["repeated"], meta, unparsed=not text.strip())

    @property
    @override
    def metrics(self) -> Sequence[Metric]:
        return caption_metrics(None, self.config.split)

    @property
    @override
    def card(self) -> Card:
        return _card(self.name, self._custom, "noun phrases and words by rules, see align/claims")


TASK = Custom


def _question(row: Row) -> Question:
    name = _name(row)
    image, question = row.fields.get("image"), row.need(("question",), _SHAPE)
    answers = row.need(("answers", "answer"), _SHAPE)
    texts = [str(answer) for answer in answers] if isinstance(answers, list) else [str(answers)]
    if not texts:
        raise AlignError(f"question {name!r} has no answers", where=row.where, fix=f"expected {_SHAPE}")
    kind = row.fields.get("kind")
    return Question(
        id=name,
        image=str(image) if image else None,
        text=str(question),
        reference={"answers": texts},
        label=Counter(texts).most_common(1)[0][0],
        kinds=(str(kind),) if kind else (),
    )


def _objects(row: Row) -> dict[str, Any]:
    """The picture's objects by COCO's names, for each mode of the extraction, and their `counts` where told.

    Raises:
        AlignError: no list of objects, or one that the extraction does not know and so could never find.
    """
    names = row.need(("objects",), _SHAPE)
    counts = names.values() if isinstance(names, dict) else ()
    if not isinstance(names, list | dict) or not all(type(count) is int and count > 0 for count in counts):
        raise AlignError("objects is not a list", where=row.where, fix=f"expected {_SHAPE}")
    # The strict extraction for both modes: the official one cannot read `bus`.
    known = {str(name): {item.category for item in find_objects(str(name), "strict")} for name in names}
    strange = [name for name, categories in known.items() if not categories]
    if strange:
        raise AlignError(
            f"{strange[0]!r} is none of the 80 kinds of objects that CHAIR finds in a text",
            where=row.where,
            fix="name COCO's categories or their synonyms, and leave out what has none",
        )
    found: dict[str, Any] = dict.fromkeys(MODES, sorted(set().union(*known.values())))
    if isinstance(names, dict):
        total: Counter[str] = Counter()
        for name, count in names.items():
            total.update(dict.fromkeys(known[str(name)], count))
        found["counts"] = dict(total)
    return found


def _picture(reference: Mapping[str, Any]) -> PictureTruth:
    counts = reference.get("counts")
    return PictureTruth(counts) if counts else PictureTruth.of_objects(reference["strict"])


def _name(row: Row) -> str:
    return row.need_id(ID_FIELDS, ANSWER_FORMAT)


def _card(name: str, config: Config, parser: str) -> Card:
    return Card(
        task=name,
        type="custom",
        prompt=config.prompt,
        parser=parser,
        split=config.split,
        aggregation="mean over questions" if config.metric in GRADERS else f"as {config.metric}",
        source=config.path.name,
        licence="yours",
        mode=config.primary_mode,
        cluster="image, or the question where it has none",
    )
