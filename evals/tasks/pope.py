"""POPE: is an object in the picture? (Li et al. 2023, arXiv:2305.10355; https://github.com/AoiDragon/POPE.)

Three variants share their positives and differ in how absent objects are picked: `random`, `popular`
(frequent in the data), `adversarial` (frequent beside the positive). They are reported apart and as
an unweighted mean, never pooled; a question that several variants share is asked once.

Edge cases: official divides by zero where nothing is answered yes; here such a ratio is 0 and listed as
undefined. Upstream's older files write `an umbrella in the imange`; texts are compared without that slip.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator
from typing_extensions import override

from align.objects.coco import load_instances
from align.rows.schema import Message
from evals.answer_files.folder import find_file
from evals.protocol import AnswerSet, Card, Mark, Metric, Mode, Sample
from evals.scoring.yes_no import Answer, parse_official, parse_strict, yes_no_metrics, yes_no_values
from evals.tasks.facts import Facts
from evals.tasks.pope_answers import ANSWER_FORMAT, read_pope_answers
from evals.tasks.pope_questions import (
    VARIANTS,
    Building,
    Question,
    Variant,
    build_questions,
    merge_questions,
    read_questions,
)
from evals.tasks.task import Task, TaskConfig


class Config(TaskConfig):
    """Questions are built from `instances`, or read from published `files`; exactly one of the two."""

    prompt: str = Field(
        default="{question}\nAnswer the question using a single word or phrase.",
        description="what is asked; {question} stands for the question",
    )
    question: str = Field(
        default="Is there {article} {object} in the image?",
        description="question to build; {article} is a or an, {object} a category name",
    )
    max_tokens: int = Field(default=16, gt=0, description="longest answer in tokens")
    split: str = Field(
        default="", description="put before the variant in tables, as split/variant; may be empty"
    )
    instances: Path | None = Field(default=None, description="COCO instances file to build questions from")
    files: dict[Variant, Path] = Field(default={}, description="variant -> published POPE JSONL file")
    num_images: int = Field(default=500, gt=0, description="images to sample (all that qualify, if fewer)")
    min_objects: int = Field(default=3, ge=1, description="distinct objects an image must have to be sampled")
    num_positives: int = Field(
        default=3, ge=1, description="objects asked about per image, with as many absent ones"
    )
    seed: int = Field(default=0, ge=0, description="picks images and absent objects")

    @model_validator(mode="after")
    def _one_source(self) -> Config:
        if (self.instances is None) == (not self.files):
            raise ValueError("set exactly one of instances and files")
        if "{question}" not in self.prompt or "{object}" not in self.question:
            raise ValueError("prompt must contain {question}, and question {object}")
        return self


class Pope(Task[Config]):
    """See the module; values of a sample as `yes_no_values` has them.

    Attributes:
        stem: what the names of the variants' files begin with.
    """

    label = "POPE"
    facts = Facts(yes_ratio="yes_ratio")
    measures = "probing"
    answer_format = ANSWER_FORMAT
    stem: ClassVar[str] = "*pope"
    source = "POPE (arXiv:2305.10355)"
    licence = "MIT (POPE); annotations as COCO, CC-BY-4.0"
    aggregation = "per variant, yes is positive; the mean row is the unweighted mean of the variants"
    parser = (
        "official: no iff a token before the first full stop is No, no or not, else yes; "
        "strict: the leading yes or no, or a plain statement; anything else is unparsed and wrong"
    )

    def __init__(self, name: str, config: Config) -> None:
        super().__init__(name, config)
        self._variants = (
            tuple(name for name in VARIANTS if name in config.files) if config.files else VARIANTS
        )

    @property
    def _building(self) -> Building:
        config = self.config
        return Building(
            config.question, config.num_images, config.min_objects, config.num_positives, config.seed
        )

    @override
    def inputs(self) -> dict[str, Path]:
        if self.config.instances is not None:
            return {"instances": self.config.instances}
        return {variant: path for variant, path in self.config.files.items()}

    @override
    def samples(self) -> list[Sample]:
        return [self._sample(question) for question in merge_questions(self._questions())]

    def _questions(self) -> list[Question]:
        """Each of each variant, also where several share one."""
        config = self.config
        if config.instances is not None:
            return build_questions(load_instances(config.instances), self._building)
        return [item for name, path in config.files.items() for item in read_questions(path, name)]

    @override
    def read_answers(self, path: Path) -> AnswerSet:
        """See `ANSWER_FORMAT`. Asked are the variants that the file answers, and a question that several
        share once for each: others' files have an answer for each."""
        samples = [self._sample(question, apart=True) for question in self._questions()]
        answers, answered = read_pope_answers(path, self.name, samples, self._variants)
        return AnswerSet([sample for sample in samples if {*sample.subsets} & answered], answers)

    def _sample(self, question: Question, apart: bool = False) -> Sample:
        """
        Args:
            apart: the question stands for one variant only.
        """
        prompt = self.config.prompt.replace("{question}", question.text)
        name = f"{Path(question.image).stem}:{question.text}"
        return Sample(
            id=f"{question.variants[0]}/{question.id or name}" if apart else name,
            images=[question.image],
            image_root=self.image_root,
            messages=[Message(role="user", content=prompt)],
            max_tokens=self.config.max_tokens,
            cluster=question.image,
            reference={"label": question.label},
            subsets=question.variants,
            meta={
                "question": question.text,
                "label": question.label,
                "kind": "present" if question.label == "yes" else "absent",
                **({"question_id": question.id} if question.id and apart else {}),
            },
        )

    @override
    def parse(self, text: str) -> Answer | None:
        return parse_official(text)

    @override
    def mark(self, sample: Sample, text: str) -> Mark:
        official, strict = self.parse(text), parse_strict(text)
        values = yes_no_values(sample.reference["label"], official, strict, drop_unparsed=True)
        return Mark(values, official, {"parsed_strict": strict}, unparsed=strict is None)

    @property
    @override
    def metrics(self) -> Sequence[Metric]:
        return self.metrics_of(self._variants)

    @override
    def metrics_of(self, parts: Collection[str]) -> Sequence[Metric]:
        variants = tuple(variant for variant in self._variants if variant in parts)
        prefix = f"{self.config.split}/" if self.config.split else ""
        modes: tuple[Mode, ...] = ("official", "strict")
        order = sorted(modes, key=lambda mode: mode != self.config.primary_mode)
        found = []
        for mode in order:
            for variant in variants:
                found += yes_no_metrics(mode, prefix + variant, (variant,), self.config.primary_mode)
            if len(variants) > 1:
                found += yes_no_metrics(mode, f"{prefix}mean", variants, primary_mode=None)
        return found

    @property
    @override
    def card(self) -> Card:
        return self.card_of(self._variants)

    @override
    def card_of(self, parts: Collection[str]) -> Card:
        origin = "built from COCO instances" if self.config.instances is not None else "published files"
        asked = ", ".join(variant for variant in self._variants if variant in parts)
        source = f"{self.source}, {origin}"
        return replace(super().card, split=self.config.split or asked, source=source)

    @override
    @classmethod
    def locate(cls, data: Path) -> dict[str, Any]:
        """The variants' question files in a published folder, else a COCO instances file to build them from.
        A single file of questions whose name tells no variant stands for one variant, `random`."""
        files = {variant: find_file(data, f"{cls.stem}_{variant}.json*") for variant in VARIANTS}
        found = {variant: path for variant, path in files.items() if path is not None}
        if found:
            return {"files": found}
        instances = find_file(data, "instances*.json")
        if instances is not None:
            return {"instances": instances}
        single = data if data.is_file() else find_file(data, f"{cls.stem}*.json*")
        return {"files": {"random": single}} if single is not None else {}


TASK = Pope
