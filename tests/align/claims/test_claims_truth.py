"""Annotations -> what is in a picture; claims -> right, wrong, not known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align.claims import Box, PictureTruth, StatedClaim, check, load_picture_truth
from align.claims.truth import places_of
from align.errors import AlignError

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}, {"id": 18, "name": "dog"}]


def annotation(image: int, category: int, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "iscrowd": 0, **more}


def write(folder: Path, annotations: list[dict[str, Any]], **size: int) -> Path:
    path = folder / "instances.json"
    images = [{"id": image, "file_name": f"{image}.png", **size} for image in (7, 8)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    return path


@pytest.fixture
def truths(tmp_path: Path) -> dict[int, PictureTruth]:
    rows = [
        annotation(7, 3, bbox=[0, 40, 20, 20], attributes={"color": "Red"}),
        annotation(7, 3, bbox=[100, 40, 20, 20], attributes={"color": ["grey", "white"]}),
        annotation(7, 18, bbox=[50, 0, 20, 20], attributes={"color": "brown"}),
        annotation(7, 18, bbox=[50, 100, 20, 20]),
        annotation(7, 1, bbox=[0, 0, 120, 120], iscrowd=1),
    ]
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps({"annotations": [{"image_id": 8, "caption": "A  cat and no dog."}]}))
    return load_picture_truth(write(tmp_path, rows, width=120, height=120), captions)


def test_annotations_are_read(truths: dict[int, PictureTruth]) -> None:
    first, second = truths[7], truths[8]
    assert first.counts == {"car": 2, "dog": 2, "person": 1}
    assert first.crowds == {"person"}
    assert first.places == {"car": {"left", "right"}, "dog": {"middle", "top", "bottom"}}
    assert first.colours == {"car": {"red", "gray", "white"}}  # one dog has no colour: not known
    assert first.boxes["car"] == (Box(0, 40, 20, 20), Box(100, 40, 20, 20))
    assert (first.width, first.counts_known) == (120, True)
    assert (second.counts, second.crowds, second.places) == ({"cat": 1}, {"cat"}, {})


@pytest.mark.parametrize(
    ("kind", "category", "value", "right"),
    [
        ("presence", "car", "", True),
        ("presence", "cat", "", False),
        ("number", "car", "2", True),
        ("number", "car", "3", False),
        ("number", "cat", "2", False),
        ("number", "person", "5", None),
        ("place", "car", "left", True),
        ("place", "car", "middle", False),
        ("place", "cat", "left", False),
        ("place", "person", "left", None),
        ("colour", "car", "red", True),
        ("colour", "car", "blue", False),
        ("colour", "dog", "brown", None),
        ("relation", "car", "left of:dog", True),
        ("relation", "dog", "above:car", True),
        ("relation", "dog", "on:car", False),
        ("relation", "dog", "behind:car", None),
        ("relation", "dog", "left of:cat", False),
        ("relation", "car", "left of:person", None),
        ("relation", "dog", "above:dog", True),
        ("relation", "dog", "left of:dog", False),
    ],
)
def test_claims_are_checked(
    truths: dict[int, PictureTruth], kind: Any, category: str, value: str, right: bool | None
) -> None:
    assert check(StatedClaim(kind, category, value), truths[7]) is right


def test_a_crowd_has_at_least_what_is_outlined() -> None:
    truth = PictureTruth({"person": 3}, crowds=frozenset({"person"}))
    asked = [check(StatedClaim("number", "person", number), truth) for number in ("2", "3", "9")]
    assert asked == [False, None, None]


def test_relations_by_boxes() -> None:
    cup, table, far = Box(40, 10, 10, 10), Box(20, 20, 60, 30), Box(0, 0, 10, 10)
    truth = PictureTruth(
        {"cup": 1, "dining table": 1, "cat": 1},
        boxes={"cup": (cup,), "dining table": (table,), "cat": (far,)},
    )

    def holds(category: str, value: str) -> bool | None:
        return check(StatedClaim("relation", category, value), truth)

    assert holds("cup", "on:dining table") and holds("dining table", "under:cup")
    assert not holds("cat", "on:dining table")  # above, but beside it
    assert holds("cup", "next to:dining table") and not holds("cat", "next to:cup")
    assert holds("cat", "left of:cup") and holds("cup", "right of:cat") and holds("cup", "below:cat")


def test_where_only_presence_is_known() -> None:
    truth = PictureTruth.of_objects(["dog", "cat"])
    asked = [
        check(StatedClaim("presence", "dog", ""), truth),
        check(StatedClaim("presence", "car", ""), truth),
        check(StatedClaim("number", "dog", "2"), truth),
        check(StatedClaim("colour", "dog", "red"), truth),
    ]
    assert asked == [True, False, None, None]


def test_a_border_is_wrong_on_no_side() -> None:
    third = 120 / 3
    assert {"left", "middle"} <= places_of(Box(third - 10 + 3, 0, 20, 20), 120, 120)
    assert places_of(Box(third - 10 + 5, 50, 20, 20), 120, 120) == {"middle"}


def test_no_size_no_places(tmp_path: Path) -> None:
    truth = load_picture_truth(write(tmp_path, [annotation(7, 3, bbox=[0, 0, 1, 1])]))[7]
    assert (truth.places, truth.boxes) == ({}, {"car": (Box(0, 0, 1, 1),)})


@pytest.mark.parametrize("row", [annotation(9, 3), annotation(7, 99)])
def test_an_annotation_of_something_unknown_is_refused(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(AlignError, match="unknown image") as caught:
        load_picture_truth(write(tmp_path, [annotation(7, 3), row]))
    assert "annotations[1]" in caught.value.where
