"""Labelled images for `align classify`: a folder a class, or lines of `{image, label}`; checked, and split.

Which images are held out depends on their names alone, so that a longer run, a second class or another
machine keeps measuring on the same ones.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from align.config.recipe import Strict
from align.errors import AlignError
from align.inputs.images import open_image, resolve_image
from align.progress import Bar
from align.rows.schema import BaseRow, read_rows


class ImagesSection(Strict):
    """Which images, and which of them are held out."""

    path: Path = Field(
        description="a folder with a folder of images for each class, or .jsonl of image, label"
    )
    image_root: Path | None = Field(
        default=None, description="what a .jsonl's images are relative to; null: the folder it is in"
    )
    held_out: float = Field(
        default=0.1, gt=0, lt=1, description="share of each class that is measured on, and not trained on"
    )
    max_pixels: int = Field(default=50_000_000, gt=0, description="larger images are quarantined")
    strict: bool = Field(
        default=False, description="a bad image stops the stage instead of being quarantined"
    )

    @property
    def root(self) -> Path:
        """The folder that image names are relative to."""
        return self.path if self.path.is_dir() else self.image_root or self.path.parent

    def inputs(self) -> dict[str, Path]:
        """For `run_stage(inputs=...)`."""
        return {"data": self.path} if self.path.is_dir() else {"data": self.path, "images": self.root}


class LabelledImage(BaseRow):
    """A line of a .jsonl: an image's path, relative to the root, and its class."""

    image: str = Field(min_length=1)
    label: str = Field(min_length=1)


@dataclass(frozen=True)
class LabelledImages:
    """What can be trained on.

    Attributes:
        labels: the classes in order; a class's place is its number in the model.
        bad: image name or line -> why it was left out.
    """

    train: list[LabelledImage]
    held_out: list[LabelledImage]
    labels: list[str]
    bad: dict[str, str]


def read_images(section: ImagesSection) -> LabelledImages:
    """Read, decode and split.

    Raises:
        AlignError: no such data, an image that is there twice, fewer than two classes or two images of a
            class, or (strict) the first bad image.
    """
    bad: dict[str, str] = {}
    found = _of_folder(section.path) if section.path.is_dir() else _of_lines(section.path, bad)
    repeated = [name for name, count in Counter(item.image for item in found).items() if count > 1]
    if repeated:
        where, fix = str(section.path), "an image has one label"
        raise AlignError(f"{len(repeated)} images are there twice: {repeated[0]}", where=where, fix=fix)
    bad |= _undecodable(found, section)
    if bad and section.strict:
        name, why = next(iter(bad.items()))
        raise AlignError(f"bad image: {why}", where=name, fix="mend it, or data.strict: false")
    kept = [item for item in found if item.image not in bad]
    labels = sorted({item.label for item in kept})
    if len(labels) < 2:
        what = f"{len(labels)} classes with images that can be read"
        fix = 'a folder of images for each class, or lines like {"image": "a.png", "label": "cat"}'
        raise AlignError(what, where=str(section.path), fix=fix)
    held_out = _held_out(kept, section.held_out)
    train = [item for item in kept if item.image not in held_out]
    return LabelledImages(train, [item for item in kept if item.image in held_out], labels, bad)


def _of_folder(root: Path) -> list[LabelledImage]:
    return [
        LabelledImage(image=file.relative_to(root).as_posix(), label=folder.name)
        for folder in sorted(root.iterdir())
        if folder.is_dir()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith(".")
    ]


def _of_lines(path: Path, bad: dict[str, str]) -> list[LabelledImage]:
    def refuse(where: str, reason: str, _: object) -> None:
        bad[where] = reason

    return list(read_rows(LabelledImage, path, refuse))


def _undecodable(items: Sequence[LabelledImage], section: ImagesSection) -> dict[str, str]:
    """Image name -> why it cannot be decoded."""

    def check(item: LabelledImage) -> tuple[str, str]:
        try:
            open_image(resolve_image(section.root, item.image), section.max_pixels)
            return item.image, ""
        except AlignError as error:
            return item.image, error.what

    faults: dict[str, str] = {}
    with Bar("checking images", len(items), "images") as bar, ThreadPoolExecutor() as pool:
        for name, fault in pool.map(check, items):
            if fault:
                faults[name] = fault
            bar.step()
    return faults


def _held_out(items: Sequence[LabelledImage], share: float) -> set[str]:
    """Names of that share of each class, at least one, in the order of their names' digests."""
    classes: defaultdict[str, list[str]] = defaultdict(list)
    for item in items:
        classes[item.label].append(item.image)
    found: set[str] = set()
    for label, names in classes.items():
        if len(names) < 2:
            what = f"class {label!r} has one image; one is trained on and one measured on"
            raise AlignError(what, where="data.path", fix="add images of it, or leave it out")
        count = min(len(names) - 1, math.ceil(share * len(names)))
        found |= set(sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:count])
    return found
