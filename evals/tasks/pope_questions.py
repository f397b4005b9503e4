"""POPE's questions: read from published files, or built from COCO annotations as POPE builds them."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from align.errors import AlignError
from align.objects.coco import Instances
from evals.scoring.yes_no import Answer

Variant = Literal["random", "popular", "adversarial"]
VARIANTS: tuple[Variant, ...] = ("random", "popular", "adversarial")


@dataclass(frozen=True)
class Question:
    """A question about one image, the variants that ask it, and its id in a published file."""

    image: str
    text: str
    label: Answer
    variants: tuple[Variant, ...]
    id: str = ""


@dataclass(frozen=True)
class Building:
    """How questions are built: see the fields of POPE's configuration."""

    question: str
    num_images: int
    min_objects: int
    num_positives: int
    seed: int


def build_questions(instances: Instances, how: Building) -> list[Question]:
    """Sample images and build the questions of each variant, image by image.

    Absent objects are never in the image and never asked before in the variant: `random` is uniform
    over all categories, `popular` takes the first by how many sampled images have it, `adversarial`
    the first by how often it stands beside the positive; ties keep the annotation file's order, and
    where nothing is left by rank, a random absent object is taken.

    Raises:
        AlignError: no image has enough objects.
    """
    eligible = [
        image_id for image_id, objects in instances.objects.items() if len(objects) >= how.min_objects
    ]
    if not eligible:
        raise AlignError(
            f"no image has {how.min_objects} objects or more",
            fix="lower min_objects",
        )
    rng = random.Random(how.seed)
    chosen = sorted(rng.sample(sorted(eligible), min(how.num_images, len(eligible))))
    ranking = _rankings([instances.objects[image_id] for image_id in chosen], instances.categories)
    asked: dict[tuple[int, str, Answer], list[Variant]] = {}
    for variant in VARIANTS:
        for image_id in chosen:
            for name, label in _ask(instances, image_id, how.num_positives, ranking[variant], rng):
                asked.setdefault((image_id, name, label), []).append(variant)
    place = {image_id: position for position, image_id in enumerate(chosen)}
    return [
        Question(instances.file_names[image_id], _question(how.question, name), label, (variant,))
        for (image_id, name, label), variants in sorted(asked.items(), key=lambda item: place[item[0][0]])
        for variant in variants
    ]


def read_questions(path: Path, variant: Variant) -> list[Question]:
    """A published file: a JSON object a line with question_id, image, text and label.

    Raises:
        AlignError: a missing or empty file, or a malformed line.
    """
    found = []
    for number, (where, row) in enumerate(_lines(path), 1):
        try:
            image, text, label = str(row["image"]), str(row["text"]), str(row["label"]).strip().lower()
        except (KeyError, TypeError) as error:
            raise AlignError(f"not a POPE question: no {error}", where=where) from error
        if label not in ("yes", "no"):
            raise AlignError(f"label {row['label']!r} is neither yes nor no", where=where)
        found.append(
            Question(
                image,
                text,
                "yes" if label == "yes" else "no",
                (variant,),
                str(row.get("question_id", number)),
            )
        )
    if not found:
        raise AlignError("no questions", where=str(path))
    return found


def merge_questions(questions: Sequence[Question]) -> list[Question]:
    """A question that several variants share once, in order of first appearance.

    Raises:
        AlignError: two labels for the same question.
    """
    merged: dict[tuple[str, str], Question] = {}
    for question in sorted(questions, key=lambda question: VARIANTS.index(question.variants[0])):
        key = (question.image, question.text)
        known = merged.get(key, question)
        if known.label != question.label:
            raise AlignError(
                f"two labels for {question.text!r} about {question.image}: {known.label} in "
                f"{known.variants[0]}, {question.label} in {question.variants[0]}",
                fix="make a task of each file",
            )
        variants = tuple(dict.fromkeys((*known.variants, *question.variants)))
        merged[key] = replace(known, variants=variants)
    return list(merged.values())


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
        lines = path.read_text(encoding="utf-8").split("\n")
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
