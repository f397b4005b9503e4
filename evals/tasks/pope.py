"""POPE: is an object in the picture? (Li et al. 2023, arXiv:2305.10355; https://github.com/AoiDragon/POPE.)

Three variants share their positives and differ in how absent objects are picked: `random`, `popular`
(frequent in the data), `adversarial` (frequent beside the positive). They are reported apart and as
an unweighted mean, never pooled; a question that several variants share is asked once.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from align.coco import Instances, load_instances
from align.errors import AlignError
from align.schema import Message
from evals.task import Card, Mark, Metric, Mode, Sample, Task, TaskConfig

Variant = Literal["random", "popular", "adversarial"]
VARIANTS: tuple[Variant, ...] = ("random", "popular", "adversarial")
Answer = Literal["yes", "no"]


class Config(TaskConfig):
    """Questions are built from `instances`, or read from published `files`; exactly one of the two."""

    type: Literal["pope"] = "pope"
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


@dataclass(frozen=True)
class Question:
    """A question about one image, and the variants that ask it."""

    image: str
    text: str
    label: Answer
    variants: tuple[Variant, ...]


class Pope(Task):
    """See the module. Values of a sample, for `official` and with the prefix `strict_`: tp, fp, tn, fn,
    n (1), and for strict `unparsed`: an answer that is neither yes nor no is wrong and no prediction."""

    type = "pope"

    def __init__(self, name: str, config: Config) -> None:
        super().__init__(name, config)
        self.config = config
        self._variants = (
            tuple(name for name in VARIANTS if name in config.files) if config.files else VARIANTS
        )

    @override
    def inputs(self) -> dict[str, Path]:
        if self.config.instances is not None:
            return {"instances": self.config.instances}
        return {variant: path for variant, path in self.config.files.items()}

    @override
    def samples(self) -> list[Sample]:
        config = self.config
        if config.instances is not None:
            questions = build_questions(load_instances(config.instances), config)
        else:
            questions = read_questions(config.files)
        return [self._sample(question) for question in questions]

    def _sample(self, question: Question) -> Sample:
        prompt = self.config.prompt.replace("{question}", question.text)
        return Sample(
            id=f"{Path(question.image).stem}:{question.text}",
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
            },
        )

    @override
    def parse(self, text: str) -> Answer:
        return parse_official(text)

    @override
    def mark(self, sample: Sample, text: str) -> Mark:
        label = sample.reference["label"]
        official, strict = parse_official(text), parse_strict(text)
        values = {"n": 1.0, "correct": float(official == label), "strict_correct": float(strict == label)}
        values |= _confusion("", official, label) | _confusion("strict_", strict, label)
        values["unparsed"] = float(strict is None)
        return Mark(values, official, {"parsed_strict": strict}, unparsed=strict is None)

    @property
    @override
    def metrics(self) -> Sequence[Metric]:
        prefix = f"{self.config.split}/" if self.config.split else ""
        modes: tuple[Mode, ...] = ("official", "strict")
        order = sorted(modes, key=lambda mode: mode != self.config.primary_mode)
        found = []
        for mode in order:
            for variant in self._variants:
                found += _metrics(mode, prefix + variant, (variant,), self.config.primary_mode)
            found += _metrics(mode, f"{prefix}mean", self._variants, primary_mode=None)
        return found

    @property
    @override
    def card(self) -> Card:
        source = "built from COCO instances" if self.config.instances is not None else "published files"
        return Card(
            task=self.name,
            type=self.type,
            prompt=self.config.prompt,
            parser="official: no iff a token before the first full stop is No, no or not, else yes; "
            "strict: the leading yes or no, or a plain statement; anything else is unparsed and wrong",
            split=self.config.split or "as its variants",
            aggregation="per variant, yes is positive; the mean row is the unweighted mean of the variants",
            source=f"POPE (arXiv:2305.10355), {source}",
            licence="MIT (POPE); annotations as COCO, CC-BY-4.0",
            mode=self.config.primary_mode,
            cluster="image",
        )


def build(name: str, config: Config) -> Pope:
    """The task of a recipe's section."""
    return Pope(name, config)


def parse_official(text: str) -> Answer:
    """As POPE's evaluate.py at 08d957b9: everything that is not a plain no is yes, the empty text included.

    >>> [parse_official(text) for text in ("No.", "NO", "", "There isn't a dog", "Yes. There is no cat")]
    ['no', 'yes', 'yes', 'yes', 'yes']
    """
    words = text.split(".", 1)[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


_WORD = re.compile(r"[a-z]+(?:['’]t)?")
_YES, _NO = {"yes", "yeah", "yep", "yup"}, {"no", "nope", "nah"}
_NEGATION = {"no", "not", "none", "cannot", "without"}


def parse_strict(text: str) -> Answer | None:
    """The answer that a reader would take from the text, None when there is none.

    A leading yes or no decides; else a first sentence such as `there is (no) dog` does.

    >>> [parse_strict(text) for text in ("NO", "", "There isn't a dog", "There is one", "Yes. No.", "dog")]
    ['no', None, 'no', 'yes', 'yes', None]
    """
    words = _WORD.findall(text.strip().lower().partition(".")[0])
    if not words:
        return None
    if words[0] in _YES | _NO:
        return "yes" if words[0] in _YES else "no"
    if any(word in _NEGATION or word.endswith(("n't", "n’t")) for word in words):
        return "no"
    stated = words[:2] in (["there", "is"], ["there", "are"], ["it", "is"], ["i", "see"])
    return "yes" if stated or set(words) & _YES else None


def build_questions(instances: Instances, config: Config) -> list[Question]:
    """Sample images and build the questions of all variants, a shared question once.

    Absent objects are never in the image and never asked before in the variant: `random` is uniform
    over all categories, `popular` takes the first by how many sampled images have it, `adversarial`
    the first by how often it stands beside the positive; ties keep the annotation file's order, and
    where nothing is left by rank, a random absent object is taken.

    Raises:
        AlignError: no image has enough objects.
    """
    eligible = [
        image_id for image_id, objects in instances.objects.items() if len(objects) >= config.min_objects
    ]
    if not eligible:
        raise AlignError(
            f"no image has {config.min_objects} objects or more",
            where=str(config.instances),
            fix="lower min_objects",
        )
    rng = random.Random(config.seed)
    chosen = sorted(rng.sample(sorted(eligible), min(config.num_images, len(eligible))))
    ranking = _rankings([instances.objects[image_id] for image_id in chosen], instances.categories)
    asked: dict[tuple[int, str, Answer], list[Variant]] = {}
    for variant in VARIANTS:
        for image_id in chosen:
            for name, label in _ask(instances, image_id, config.num_positives, ranking[variant], rng):
                asked.setdefault((image_id, name, label), []).append(variant)
    place = {image_id: position for position, image_id in enumerate(chosen)}
    return [
        Question(instances.file_names[image_id], _question(config.question, name), label, tuple(variants))
        for (image_id, name, label), variants in sorted(asked.items(), key=lambda item: place[item[0][0]])
    ]


def read_questions(files: dict[Variant, Path]) -> list[Question]:
    """Published files (a JSON object a line: image, text, label), a question that several share once.

    Raises:
        AlignError: a missing file, a malformed line, or two labels for the same question.
    """
    labels: dict[tuple[str, str], Answer] = {}
    variants: dict[tuple[str, str], list[Variant]] = {}
    for variant in sorted(files, key=VARIANTS.index):
        for where, row in _lines(files[variant]):
            try:
                key, label = (str(row["image"]), str(row["text"])), str(row["label"]).strip().lower()
            except (KeyError, TypeError) as error:
                raise AlignError(f"not a POPE question: no {error}", where=where) from error
            if label not in ("yes", "no") or labels.get(key, label) != label:
                raise AlignError(
                    f"label {row['label']!r} is neither yes nor no, or contradicts another file", where=where
                )
            labels[key] = "yes" if label == "yes" else "no"
            variants.setdefault(key, []).append(variant)
    if not labels:
        raise AlignError("no questions", where=", ".join(map(str, files.values())))
    return [Question(*key, labels[key], tuple(dict.fromkeys(variants[key]))) for key in labels]


Rank = Callable[[str], Sequence[str]]


def _rankings(images: Sequence[Sequence[str]], categories: Sequence[str]) -> dict[Variant, Rank]:
    """For each variant: positive -> candidates, best first; `random` ranks none and so always falls back."""
    frequency = Counter(name for objects in images for name in objects)
    beside: dict[str, Counter[str]] = {name: Counter() for name in categories}
    for objects in images:
        for name in objects:
            beside[name].update(other for other in objects if other != name)
    popular = sorted((name for name in categories if frequency[name]), key=lambda name: -frequency[name])

    def adversarial(positive: str) -> list[str]:
        counts = beside[positive]
        return sorted((name for name in categories if counts[name]), key=lambda name: -counts[name])

    return {"random": lambda _: (), "popular": lambda _: popular, "adversarial": adversarial}


def _ask(
    instances: Instances, image_id: int, num_positives: int, rank: Rank, rng: random.Random
) -> Iterable[tuple[str, Answer]]:
    present = instances.objects[image_id]
    barred = set(present)
    for positive in present[:num_positives]:
        yield positive, "yes"
        absent = [name for name in instances.categories if name not in barred]
        if absent:
            negative = next((name for name in rank(positive) if name not in barred), None) or rng.choice(
                absent
            )
            barred.add(negative)
            yield negative, "no"


def _question(template: str, name: str) -> str:
    article = "an" if name[0] in "aeiou" else "a"
    return template.replace("{article}", article).replace("{object}", name)


def _lines(path: Path) -> Iterable[tuple[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise AlignError(
            f"cannot read {path}: {error.strerror}", fix="check the path in the recipe"
        ) from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except ValueError as error:
                raise AlignError(f"not JSON: {error}", where=f"{path}:{number}") from error


def _confusion(prefix: str, answer: Answer | None, label: Answer) -> dict[str, float]:
    """An unparsed answer to a present object is a miss; to an absent one it counts in n alone."""
    return {
        f"{prefix}tp": float(answer == "yes" and label == "yes"),
        f"{prefix}fp": float(answer == "yes" and label == "no"),
        f"{prefix}tn": float(answer == "no" and label == "no"),
        f"{prefix}fn": float(answer != "yes" and label == "yes"),
    }


def _metrics(mode: Mode, split: str, subsets: tuple[str, ...], primary_mode: Mode | None) -> list[Metric]:
    """Accuracy, precision, recall, F1 (primary) and the share of yes among the *predictions*."""
    mark, suffix = ("", "") if mode == "official" else ("strict_", "_strict")
    tp, fp, tn, fn = (f"{mark}{name}" for name in ("tp", "fp", "tn", "fn"))
    table: list[tuple[str, dict[str, float], dict[str, float], bool | None]] = [
        ("f1", {tp: 2}, {tp: 2, fp: 1, fn: 1}, True),
        ("accuracy", {tp: 1, tn: 1}, {"n": 1}, True),
        ("precision", {tp: 1}, {tp: 1, fp: 1}, True),
        ("recall", {tp: 1}, {tp: 1, fn: 1}, True),
        ("yes_ratio", {tp: 1, fp: 1}, {"n": 1}, None),
    ]
    return [
        Metric(
            name=name + suffix,
            split=split,
            numerator=numerator,
            denominator=denominator,
            higher_is_better=better,
            primary=name == "f1" and mode == primary_mode,
            mode=mode,
            subsets=subsets,
        )
        for name, numerator, denominator, better in table
    ]
