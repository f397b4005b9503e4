"""What is really in the pictures, by annotations: the instances, and the objects that their captions name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from align.claims import PictureTruth, load_picture_truth
from align.config.recipe import Strict
from align.objects.coco import load_captions, load_instances
from align.objects.mentions import Mode, find_objects


class Annotations(Strict):
    """COCO-format annotations of one split."""

    instances: Path = Field(description="COCO instances file")
    captions: Path | None = Field(
        default=None, description="COCO captions file (true ones); the objects they name count as present"
    )


def load_truth(files: Sequence[Annotations], mode: Mode) -> dict[int, set[str]]:
    """Image id -> names of the COCO objects in it (CHAIR's ground truth, Rohrbach et al. 2018)."""
    found: dict[int, set[str]] = {}
    for item in files:
        for image_id, names in load_instances(item.instances).objects.items():
            found.setdefault(image_id, set()).update(names)
        for image_id, captions in (load_captions(item.captions) if item.captions else {}).items():
            names = {mention.category for text in captions for mention in find_objects(text, mode)}
            found.setdefault(image_id, set()).update(names)
    return found


def load_pictures(files: Sequence[Annotations]) -> dict[int, PictureTruth]:
    """Image id -> what is known of it: counts, places, colours and boxes; of several files the last one's."""
    found: dict[int, PictureTruth] = {}
    for item in files:
        found |= load_picture_truth(item.instances, item.captions)
    return found


def truth_inputs(files: Sequence[Annotations]) -> dict[str, str | Path]:
    """The files by name, for a stage's input digests."""
    inputs: dict[str, str | Path] = {}
    for number, item in enumerate(files):
        inputs[f"instances_{number}"] = item.instances
        if item.captions:
            inputs[f"captions_{number}"] = item.captions
    return inputs
