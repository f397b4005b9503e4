"""VQA accuracy against ten annotators (Goyal et al. 2017, arXiv:1612.00837; https://github.com/GT-Vision-Lab/VQA).

Reads VQAv2's question and annotation files. `official` is VQAEval: answers are normalised only where
the annotators disagree, so that a `Yes` scores 0 where ten of them said `yes`. `strict` normalises always.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator
from typing_extensions import override

from align.coco import read_json
from align.errors import AlignError
from align.schema import Message
from evals.answers import OWN_FORMAT
from evals.data_folder import find_file
from evals.normalise import clean, normalise
from evals.task import Card, Mark, Metric, Mode, Sample, Task, TaskConfig

ANSWER_FORMAT = OWN_FORMAT


class Config(TaskConfig):
    """VQAv2-format files."""

    type: Literal["vqa"] = "vqa"
    prompt: str = Field(
        default="{question}\nAnswer the question using a single word or phrase.",
        description="what is asked; {question} stands for the question",
    )
    max_tokens: int = Field(default=16, gt=0, description="longest answer in tokens")
    questions: Path = Field(description="VQAv2 questions JSON")
    annotations: Path = Field(description="VQAv2 annotations JSON of the same questions")
    file_name: str = Field(
        default="COCO_val2014_{image_id:012d}.jpg", description="image file of an image id"
    )
    num_questions: int | None = Field(default=None, gt=0, description="questions to sample; all if not set")
    seed: int = Field(default=0, ge=0, description="picks the questions")

    @field_validator("prompt")
    @classmethod
    def _has_question(cls, prompt: str) -> str:
        if "{question}" not in prompt:
            raise ValueError("must contain {question}")
        return prompt


class Vqa(Task):
    """See the module. Values of a sample: n (1), accuracy and strict_accuracy (0 to 1)."""

    type = "vqa"

    def __init__(self, name: str, config: Config) -> None:
        super().__init__(name, config)
        self.config = config
        self._kinds: tuple[str, ...] | None = None

    @override
    def inputs(self) -> dict[str, Path]:
        return {"questions": self.config.questions, "annotations": self.config.annotations}

    @override
    def samples(self) -> list[Sample]:
        config = self.config
        samples = [self._sample(*pair) for pair in _read_pairs(config.questions, config.annotations)]
        if config.num_questions is not None and config.num_questions < len(samples):
            kept = random.Random(config.seed).sample(range(len(samples)), config.num_questions)
            samples = [samples[index] for index in sorted(kept)]
        if not samples:
            raise AlignError("no questions", where=str(config.questions))
        return samples

    def _sample(self, question: dict[str, Any], annotation: dict[str, Any]) -> Sample:
        text, kind = str(question["question"]), str(annotation["question_type"])
        image = self.config.file_name.format(image_id=int(question["image_id"]))
        answers = [clean(str(item["answer"])) for item in annotation["answers"]]
        return Sample(
            id=str(question["question_id"]),
            images=[image],
            image_root=self.image_root,
            messages=[Message(role="user", content=self.config.prompt.replace("{question}", text))],
            max_tokens=self.config.max_tokens,
            cluster=image,
            reference={"answers": answers},
            subsets=(kind,),
            meta={"question": text, "label": max(answers, key=answers.count), "kind": kind},
        )

    @override
    def parse(self, text: str) -> str:
        return clean(text)

    @override
    def mark(self, sample: Sample, text: str) -> Mark:
        answers = sample.reference["answers"]
        values = {
            "n": 1.0,
            "accuracy": vqa_accuracy(text, answers, "official"),
            "strict_accuracy": vqa_accuracy(text, answers, "strict"),
        }
        parsed = clean(text)
        return Mark(values, parsed, {"parsed_strict": normalise(parsed)}, unparsed=not parsed)

    @property
    @override
    def metrics(self) -> Sequence[Metric]:
        kinds = self.kinds
        modes: tuple[Mode, ...] = ("official", "strict")
        found = []
        for mode in sorted(modes, key=lambda mode: mode != self.config.primary_mode):
            found.append(self._metric(mode, self.config.split, (), "right answers, all questions"))
            found.append(
                self._metric(mode, f"{self.config.split}/mean of kinds", kinds, "unweighted mean over kinds")
            )
            found += [self._metric(mode, f"{self.config.split}/{kind}", (kind,), kind) for kind in kinds]
        return found

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of question that are asked, sorted; reads the annotations once."""
        if self._kinds is None:
            self._kinds = tuple(sorted({kind for sample in self.samples() for kind in sample.subsets}))
        return self._kinds

    def _metric(self, mode: Mode, split: str, subsets: tuple[str, ...], description: str) -> Metric:
        return Metric(
            name="accuracy" if mode == "official" else "accuracy_strict",
            split=split,
            numerator={"accuracy" if mode == "official" else "strict_accuracy": 1},
            denominator={"n": 1},
            higher_is_better=True,
            primary=not subsets and mode == self.config.primary_mode,
            description=description,
            mode=mode,
            subsets=subsets,
        )

    @property
    @override
    def card(self) -> Card:
        return Card(
            task=self.name,
            type=self.type,
            prompt=self.config.prompt,
            parser="official: VQAEval, normalised only where annotators disagree; strict: always normalised",
            split=self.config.split,
            aggregation="min(1, matches among the other annotators / 3), mean over annotators and questions",
            source="VQAv2 format (arXiv:1612.00837)",
            licence="CC-BY-4.0 (VQAv2 annotations), if those are used",
            mode=self.config.primary_mode,
            cluster="image",
        )


def build(name: str, config: Config) -> Vqa:
    """The task of a recipe's section."""
    return Vqa(name, config)


def locate(data: Path) -> dict[str, Any]:
    """VQAv2's validation questions and annotations in a folder."""
    questions = find_file(data, "*questions*val*.json", "*val*questions.json", "*questions*.json")
    annotations = find_file(data, "*val*annotations.json", "*annotations*.json")
    found = {"questions": questions, "annotations": annotations}
    return {key: path for key, path in found.items() if path is not None}


def vqa_accuracy(answer: str, annotators: Sequence[str], mode: Mode = "official") -> float:
    """VQAEval's accuracy of one answer, 0 to 1: mean over annotators of min(1, matches among the others / 3).

    >>> [round(vqa_accuracy("yes", ["yes"] * k + ["no"] * (10 - k)), 2) for k in (0, 1, 2, 3, 4)]
    [0.0, 0.3, 0.6, 0.9, 1.0]
    >>> vqa_accuracy("Yes", ["yes"] * 10), vqa_accuracy("Yes", ["yes"] * 10, "strict")
    (0.0, 1.0)
    """
    answer, truth = clean(answer), [clean(item) for item in annotators]
    if mode == "strict" or len(set(truth)) > 1:
        answer, truth = normalise(answer), [normalise(item) for item in truth]
    matches = sum(item == answer for item in truth)
    return sum(min(1.0, (matches - (item == answer)) / 3) for item in truth) / len(truth)


def _read_pairs(questions: Path, annotations: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
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
            annotation["question_type"]
    except (KeyError, TypeError) as error:
        raise AlignError(
            f"not VQAv2's format, or an unknown question: {error}", where=str(annotations)
        ) from error
    return pairs
