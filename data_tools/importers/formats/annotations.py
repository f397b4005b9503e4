"""COCO captions, VQAv2 and GQA: annotation files as instruction rows, one question a row.

https://cocodataset.org/#format-data, https://visualqa.org/vqa_v1_challenge.html (v2 has the same form) and
https://cs.stanford.edu/people/dorarad/gqa/download.html. The questions' and captions' wording is LLaVA-1.5's
(Liu et al. 2023, arXiv:2310.03744, table 7). `align instructions` makes dialogues and mixtures of the same
files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from align.errors import AlignError
from data_tools.importers.items import Item
from data_tools.importers.published import Format, Options, Published, Row
from data_tools.importers.sources import json_section
from data_tools.importers.turns import answer_turn, question_turn
from data_tools.importers.unusable import Unusable

CAPTION_PROMPT = "Provide a one-sentence caption for the provided image."
SHORT_ANSWER = "\nAnswer the question using a single word or phrase."


def _caption_items(source: Path, options: Options) -> Iterator[Item]:
    """Captions with the name of their picture's file."""
    names: dict[Any, Any] = {}
    for image in json_section(source, "images"):
        if isinstance(image.get("id"), int):
            names[image["id"]] = image.get("file_name")
    for number, row in enumerate(json_section(source, "annotations")):
        image_id = row.get("image_id")
        name = names.get(image_id) if isinstance(image_id, int) else None
        yield Item(f"{source} annotations[{number}]", {**row, "file_name": name})


def _caption(published: Published) -> list[Row]:
    if not published.get("file_name"):
        raise Unusable("a caption of an unknown image", repr(published.get("image_id"))[:100])
    images = published.pictures.of(published.get("file_name"))
    text = " ".join(published.text("caption").split())
    turns = [*question_turn(CAPTION_PROMPT), *answer_turn(text)]
    return [published.instruction(images, turns, published.origin("image_id"))]


def _vqa_items(source: Path, options: Options) -> Iterator[Item]:
    """Questions with their majority answer."""
    if options.annotations is None:
        raise AlignError(
            "VQAv2's answers are in a file of their own",
            where=str(source),
            fix="name it with --annotations v2_mscoco_train2014_annotations.json",
        )
    answers: dict[int, Any] = {}
    for row in json_section(options.annotations, "annotations"):
        if isinstance(row.get("question_id"), int):
            answers[row["question_id"]] = row.get("multiple_choice_answer")
    subtype = _data_subtype(source)
    for number, row in enumerate(json_section(source, "questions")):
        question_id = row.get("question_id")
        answer = answers.get(question_id) if isinstance(question_id, int) else None
        yield Item(f"{source} questions[{number}]", {**row, "answer": answer, "data_subtype": subtype})


def _data_subtype(source: Path) -> str:
    """`train2014`, say, which the pictures' file names carry; from the file's name where it does not tell."""
    with source.open("rb") as file:
        found = re.search(rb'"data_subtype"\s*:\s*"(\w+)"', file.read(1 << 16))
    if found:
        return found[1].decode()
    return next((name for name in ("train2014", "val2014", "test2015") if name in source.name), "")


def _vqa(published: Published) -> list[Row]:
    if not published.get("answer"):
        raise Unusable("a question without an answer")
    image_id = published.get("image_id")
    if not isinstance(image_id, int) or isinstance(image_id, bool) or image_id < 0:
        raise Unusable("image_id is no number", repr(image_id)[:100])
    images = [published.pictures.first_of(_coco_names(published.get("data_subtype"), image_id))]
    turns = question_turn(published.text("question") + SHORT_ANSWER, len(images), marked=False)
    meta = published.origin("image_id")
    return [published.instruction(images, [*turns, *answer_turn(published.text("answer"))], meta)]


def _coco_names(subtype: str, image_id: int) -> list[str]:
    """COCO's 2014 name, in the archive's folder or without, and the 2017 name."""
    old, new = f"COCO_{subtype}_{image_id:012d}.jpg", f"{image_id:012d}.jpg"
    return [old, f"{subtype}/{old}", new]


def _gqa(published: Published) -> list[Row]:
    image_id = published.text("imageId")
    images = [published.pictures.first_of([f"{image_id}.jpg", f"images/{image_id}.jpg"])]
    turns = question_turn(published.text("question") + SHORT_ANSWER, len(images), marked=False)
    meta = {"source_id": str(published.get("key"))[:200].encode("utf-8", "replace").decode()}
    meta |= published.origin("imageId", "fullAnswer")
    return [published.instruction(images, [*turns, *answer_turn(published.text("answer"))], meta)]


FORMATS = (
    Format(
        "coco_captions",
        "COCO's captions_*.json: instruction rows",
        '{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}',
        _caption,
        join=_caption_items,
    ),
    Format(
        "vqav2",
        "VQAv2's questions, with --annotations: instruction rows",
        '{"data_subtype", "questions": [{"image_id", "question", "question_id"}]}',
        _vqa,
        join=_vqa_items,
    ),
    Format(
        "gqa",
        "GQA's questions: instruction rows",
        '{"02930152": {"imageId", "question", "answer", "fullAnswer", ...}, ...}',
        _gqa,
        layout="map",
        needs=("key", "imageId", "question", "answer"),
    ),
)
