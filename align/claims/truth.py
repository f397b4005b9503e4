"""What is in a picture, by its annotations, and whether a claim agrees with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from align.claims.claims import StatedClaim
from align.errors import AlignError
from align.objects.coco import load_captions, load_section
from align.objects.mentions import find_objects

PLACE_SLACK = 1 / 32
"""Share of the picture's side by which each third is widened, so that a border case is wrong on no side."""


class Box(NamedTuple):
    """COCO's bbox in pixels: left, top, width, height."""

    x: float
    y: float
    width: float
    height: float

    @property
    def centre(self) -> tuple[float, float]:
        """Of the box."""
        return self.x + self.width / 2, self.y + self.height / 2


@dataclass(frozen=True)
class PictureTruth:
    """What is known of one picture.

    Attributes:
        counts: category -> instances that are there; a category that is not listed is not there.
        crowds: categories of which at least that many are there: COCO's crowds, and what only people's
            captions name.
        places: category -> the places where one of its instances stands; see `places_of`. A category without
            an entry: not known.
        colours: category -> the colours of its instances, where every one of them is annotated.
        boxes: category -> its instances' boxes, where every one of them has one.
        counts_known: False where only presence is known; `counts` then says 1 for what is there.
        width, height: in pixels; 0 where unknown.
    """

    counts: Mapping[str, int]
    crowds: frozenset[str] = frozenset()
    places: Mapping[str, frozenset[str]] = field(default_factory=dict)
    colours: Mapping[str, frozenset[str]] = field(default_factory=dict)
    boxes: Mapping[str, tuple[Box, ...]] = field(default_factory=dict)
    counts_known: bool = True
    width: float = 0
    height: float = 0

    @classmethod
    def of_objects(cls, names: Collection[str]) -> PictureTruth:
        """Where it is known which objects are there and nothing else."""
        return cls(dict.fromkeys(names, 1), counts_known=False)


def load_picture_truth(instances: Path, captions: Path | None = None) -> dict[int, PictureTruth]:
    """Image id -> what is there, for every image of a COCO instances file.

    Read are `bbox`, `iscrowd` and, where an annotation has it, `attributes: {color: red}` (or a list of
    colours); images may have `width` and `height`.

    Args:
        captions: COCO captions of the same images: an object that they name and nobody outlined is there, in
            a number that is not known.

    Raises:
        AlignError: a file that is missing or malformed, or an annotation of an unknown image or category.
    """
    names = {row.get("id"): str(row.get("name")) for row in load_section(instances, "categories")}
    images = {row.get("id"): row for row in load_section(instances, "images")}
    rows: dict[int, list[tuple[str, dict[str, Any]]]] = {
        _image_id(image, instances): [] for image in images.values()
    }
    for number, row in enumerate(load_section(instances, "annotations")):
        image, category = row.get("image_id"), row.get("category_id")
        if image not in rows or category not in names:
            where = f"{instances} annotations[{number}]"
            raise AlignError(f"unknown image {image} or category {category}", where=where)
        rows[image].append((names[category], row))
    said = load_captions(captions) if captions is not None else {}
    return {image: _picture(images[image], found, said.get(image, [])) for image, found in rows.items()}


def check(claim: StatedClaim, truth: PictureTruth) -> bool | None:
    """Whether a claim is right; None where the annotations don't say.

    Whatever is said of an object that is not there is wrong. A place or colour is right if it is one
    instance's, a relation if two instances stand so, by their boxes: left, right, above and below compare
    centres; `on` and `under` ask besides that the boxes overlap from side to side, `next to` that the gap is
    no wider than the larger of the two boxes' widths. Behind and in front are not known.
    """
    if claim.category not in truth.counts:
        return False
    if claim.kind == "presence":
        return True
    if claim.kind == "number":
        return _check_number(int(claim.value), claim.category, truth)
    if claim.kind == "relation":
        return _check_relation(claim, truth)
    known = truth.places if claim.kind == "place" else truth.colours
    return claim.value in known[claim.category] if claim.category in known else None


def places_of(box: Box, width: float, height: float) -> frozenset[str]:
    """The thirds in which a box's centre lies, of the width (left, middle, right) and height (top, bottom).

    >>> sorted(places_of(Box(0, 0, 20, 20), 120, 120))
    ['left', 'top']
    """
    x, y = box.centre
    across, down = x / width, y / height
    found = {name for name, low in (("left", 0.0), ("middle", 1 / 3), ("right", 2 / 3)) if _in(across, low)}
    found |= {name for name, low in (("top", 0.0), ("bottom", 2 / 3)) if _in(down, low)}
    return frozenset(found)


def _in(value: float, low: float) -> bool:
    return low - PLACE_SLACK <= value <= low + 1 / 3 + PLACE_SLACK


def _image_id(image: Mapping[str, Any], path: Path) -> int:
    if not isinstance(image.get("id"), int):
        raise AlignError(f"image without a number as id: {image.get('id')!r}", where=str(path))
    return image["id"]


def _picture(
    image: Mapping[str, Any], rows: list[tuple[str, dict[str, Any]]], captions: list[str]
) -> PictureTruth:
    counts = Counter(name for name, _ in rows)
    crowds = {name for name, row in rows if row.get("iscrowd")}
    for caption in captions:
        for mention in find_objects(caption, "strict"):
            if mention.category not in counts:
                counts[mention.category] = 1
                crowds.add(mention.category)
    width, height = float(image.get("width") or 0), float(image.get("height") or 0)
    boxes = _complete(rows, lambda row: [Box(*map(float, row["bbox"]))] if row.get("bbox") else [])
    places = (
        {
            name: frozenset[str]().union(*(places_of(box, width, height) for box in found))
            for name, found in boxes.items()
        }
        if width and height
        else {}
    )
    colours = {name: frozenset(found) for name, found in _complete(rows, _colours).items()}
    return PictureTruth(
        counts=dict(counts),
        crowds=frozenset(crowds),
        places=places,
        colours=colours,
        boxes={name: tuple(found) for name, found in boxes.items()},
        width=width,
        height=height,
    )


def _complete(
    rows: list[tuple[str, dict[str, Any]]], read: Callable[[dict[str, Any]], list[Any]]
) -> dict[str, list[Any]]:
    """Category -> what `read` finds in its annotations, where each of them has something."""
    found: dict[str, list[Any]] = {}
    missing = set()
    for name, row in rows:
        values = read(row)
        if not values or row.get("iscrowd"):
            missing.add(name)
        found.setdefault(name, []).extend(values)
    return {name: values for name, values in found.items() if name not in missing}


def _colours(row: dict[str, Any]) -> list[str]:
    attributes = row.get("attributes")
    value = attributes.get("color") if isinstance(attributes, dict) else None
    names = value if isinstance(value, list) else [value] if value else []
    return ["gray" if str(name).lower() == "grey" else str(name).lower() for name in names]


def _check_number(number: int, category: str, truth: PictureTruth) -> bool | None:
    there = truth.counts[category]
    if not truth.counts_known:
        return None
    if category in truth.crowds:
        return False if number < there else None
    return number == there


def _check_relation(claim: StatedClaim, truth: PictureTruth) -> bool | None:
    predicate, other = claim.value.partition(":")[0], claim.other
    if other not in truth.counts:
        return False
    if predicate not in _RELATIONS or claim.category not in truth.boxes or other not in truth.boxes:
        return None
    holds = _RELATIONS[predicate]
    ones, others = truth.boxes[claim.category], truth.boxes[other]
    return any(
        holds(one, two)
        for first, one in enumerate(ones)
        for second, two in enumerate(others)
        if claim.category != other or first != second
    )


def _overlap(one: Box, two: Box) -> bool:
    return one.x < two.x + two.width and two.x < one.x + one.width


def _gap(one: Box, two: Box) -> float:
    across = max(one.x, two.x) - min(one.x + one.width, two.x + two.width)
    down = max(one.y, two.y) - min(one.y + one.height, two.y + two.height)
    return max(across, down, 0.0)


_RELATIONS: dict[str, Callable[[Box, Box], bool]] = {
    "left of": lambda one, two: one.centre[0] < two.centre[0],
    "right of": lambda one, two: one.centre[0] > two.centre[0],
    "above": lambda one, two: one.centre[1] < two.centre[1],
    "below": lambda one, two: one.centre[1] > two.centre[1],
    "on": lambda one, two: one.centre[1] < two.centre[1] and _overlap(one, two),
    "under": lambda one, two: one.centre[1] > two.centre[1] and _overlap(one, two),
    "next to": lambda one, two: _gap(one, two) <= max(one.width, two.width),
}
