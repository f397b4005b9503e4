"""COCO annotation files as evaluations need them: which objects are in which image."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import AlignError


@dataclass(frozen=True)
class Instances:
    """What a COCO `instances_*.json` says.

    Attributes:
        file_names: image id -> file name, in the file's order.
        objects: image id -> distinct category names in order of first annotation; every image has an entry.
        categories: all category names of the file, in its order, whether annotated or not.
    """

    file_names: dict[int, str]
    objects: dict[int, list[str]]
    categories: list[str]


def read_instances(path: Path) -> Instances:
    """Read an instances file; crowds count as objects.

    Raises:
        AlignError: missing, not JSON, or not of COCO's format.
    """
    raw = read_json(path)
    try:
        names = {int(item["id"]): str(item["name"]) for item in raw["categories"]}
        files = {int(item["id"]): str(item["file_name"]) for item in raw["images"]}
        objects: dict[int, dict[str, None]] = {image_id: {} for image_id in files}
        for item in raw["annotations"]:
            objects[int(item["image_id"])][names[int(item["category_id"])]] = None
    except (KeyError, TypeError, ValueError) as error:
        raise AlignError(
            f"not a COCO instances file: {type(error).__name__} {error}", where=str(path)
        ) from error
    return Instances(
        files, {image_id: list(found) for image_id, found in objects.items()}, list(names.values())
    )


def read_captions(path: Path) -> dict[int, list[str]]:
    """Captions by image id from a COCO `captions_*.json`.

    Raises:
        AlignError: missing, not JSON, or not of COCO's format.
    """
    raw = read_json(path)
    captions: dict[int, list[str]] = {}
    try:
        for item in raw["annotations"]:
            captions.setdefault(int(item["image_id"]), []).append(str(item["caption"]))
    except (KeyError, TypeError, ValueError) as error:
        raise AlignError(
            f"not a COCO captions file: {type(error).__name__} {error}", where=str(path)
        ) from error
    return captions


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        AlignError: missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AlignError(
            f"cannot read {path}: {error.strerror}", fix="check the path in the recipe"
        ) from error
    except ValueError as error:
        raise AlignError(f"not JSON: {error}", where=str(path)) from error
