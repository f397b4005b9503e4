"""COCO-format and VQAv2-format annotation files, read with every fault named.

Formats: https://cocodataset.org/#format-data (instances, captions) and
https://visualqa.org/vqa_v1_challenge.html (questions and annotations, unchanged in v2).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import AlignError


@dataclass(frozen=True)
class Instances:
    """What a COCO `instances_*.json` says.

    Attributes:
        file_names: image id -> file name, in the file's order.
        objects: image id -> distinct category names in order of first annotation (crowds count); every
            image has an entry.
        categories: all category names of the file, in its order, whether annotated or not.
    """

    file_names: dict[int, str]
    objects: dict[int, list[str]]
    categories: list[str]


@dataclass(frozen=True)
class VqaQuestion:
    """A question with its majority answer.

    Attributes:
        agreement: how many of the annotators gave `answer`; equals `num_answers` for one voice.
    """

    id: int
    image_id: int
    question: str
    kind: str
    answer: str
    agreement: int
    num_answers: int


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        AlignError: missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise AlignError(
            f"cannot read {path}: {error.strerror}", fix="check the path, or run the stage that writes it"
        ) from error
    except ValueError as error:
        raise AlignError(f"not JSON: {error}", where=str(path)) from error


def load_section(path: Path, section: str) -> list[dict[str, Any]]:
    """One list of a JSON annotation file.

    Raises:
        AlignError: as `read_json`, or no such list.
    """
    tree = read_json(path)
    rows = tree.get(section) if isinstance(tree, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise AlignError(f"no list {section!r} in this file", where=str(path), fix="name a COCO-format file")
    return rows


def load_images(path: Path) -> dict[int, str]:
    """Image id -> file name.

    Raises:
        AlignError: as `load_section`, no images, or an id that occurs twice.
    """
    found: dict[int, str] = {}
    for number, row in enumerate(load_section(path, "images")):
        image_id, name = _fields(row, ("id", "file_name"), path, f"images[{number}]")
        if image_id in found:
            raise AlignError(f"duplicate image id {image_id}", where=str(path), fix="ids must be unique")
        found[image_id] = str(name)
    if not found:
        raise AlignError("no images in this file", where=str(path))
    return found


def load_captions(path: Path) -> dict[int, list[str]]:
    """Image id -> its captions, in the file's order.

    Raises:
        AlignError: as `load_section`, or a row without image id or caption.
    """
    found: dict[int, list[str]] = {}
    for number, row in enumerate(load_section(path, "annotations")):
        image_id, caption = _fields(row, ("image_id", "caption"), path, f"annotations[{number}]")
        found.setdefault(image_id, []).append(" ".join(str(caption).split()))
    return found


def load_instances(path: Path) -> Instances:
    """Which objects are in which image.

    Raises:
        AlignError: as `load_section`, or an annotation of an unknown image or category.
    """
    categories: dict[Any, str] = {}
    for number, row in enumerate(load_section(path, "categories")):
        category_id, name = _fields(row, ("id", "name"), path, f"categories[{number}]")
        categories[category_id] = str(name)
    file_names = load_images(path)
    objects: dict[int, dict[str, None]] = {image_id: {} for image_id in file_names}
    for number, row in enumerate(load_section(path, "annotations")):
        image_id, category = _fields(row, ("image_id", "category_id"), path, f"annotations[{number}]")
        if image_id not in objects or category not in categories:
            raise AlignError(
                f"unknown image {image_id} or category {category}", where=f"{path} annotations[{number}]"
            )
        objects[image_id][categories[category]] = None
    found = {image_id: list(names) for image_id, names in objects.items()}
    return Instances(file_names, found, list(categories.values()))


def load_questions(questions: Path, annotations: Path) -> list[VqaQuestion]:
    """Questions joined with their answers by question id, sorted by id.

    Raises:
        AlignError: as `load_section`, a question id that occurs twice, or a question without answer.
    """
    answers: dict[int, dict[str, Any]] = {}
    for number, row in enumerate(load_section(annotations, "annotations")):
        answers[_fields(row, ("question_id",), annotations, f"annotations[{number}]")[0]] = row
    found: dict[int, VqaQuestion] = {}
    for number, row in enumerate(load_section(questions, "questions")):
        where = f"questions[{number}]"
        question_id, image_id, text = _fields(row, ("question_id", "image_id", "question"), questions, where)
        if question_id in found:
            raise AlignError(f"duplicate question id {question_id}", where=str(questions))
        if question_id not in answers:
            raise AlignError(f"question {question_id} has no answer", where=str(annotations))
        answer, agreement, total = _majority(answers[question_id], annotations)
        kind = str(answers[question_id].get("question_type", ""))
        found[question_id] = VqaQuestion(question_id, image_id, str(text), kind, answer, agreement, total)
    if not found:
        raise AlignError("no questions in this file", where=str(questions))
    return [found[question_id] for question_id in sorted(found)]


def _majority(row: dict[str, Any], path: Path) -> tuple[str, int, int]:
    voices = [str(item["answer"]) for item in row.get("answers", []) if isinstance(item, dict)]
    stated = row.get("multiple_choice_answer")
    if stated is None and not voices:
        raise AlignError(f"no answer to question {row.get('question_id')}", where=str(path))
    answer = str(stated) if stated is not None else Counter(voices).most_common(1)[0][0]
    return answer, voices.count(answer) if voices else 1, len(voices) or 1


def _fields(row: dict[str, Any], names: Sequence[str], path: Path, where: str) -> list[Any]:
    missing = [name for name in names if name not in row]
    if missing:
        raise AlignError(f"missing field {missing[0]!r}", where=f"{path} {where}")
    return [row[name] for name in names]
