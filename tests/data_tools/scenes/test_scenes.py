"""The embedded world: same bytes for the same seed, true answers, stated noise, COCO's formats."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_tools.scenes import stage
from data_tools.scenes.categories import BY_ID, BY_NAME, CATEGORIES, CONTEXTS, typical_objects
from data_tools.scenes.coco_files import write_world
from data_tools.scenes.colours import COLOURED, COLOURS, dye
from data_tools.scenes.language import (
    NOISE_SHARE,
)
from data_tools.scenes.render import (
    IMAGE_SIZE,
    MAX_OBJECTS,
    MIN_VISIBLE,
    SPLITS,
    TRAIN_STYLES,
    UNSEEN_STYLE,
    make_scene,
    sprite,
    sprite_cells,
)

SIZES: dict[str, Any] = {"train": 12, "dev": 6, "test": 6, "unseen": 6}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out_dir = tmp_path_factory.mktemp("world")
    write_world(out_dir, **SIZES, seed=3)
    return out_dir


def load(world: Path, name: str) -> dict:
    return json.loads((world / "annotations" / f"{name}.json").read_text())


def test_same_seed_same_bytes(world: Path, tmp_path: Path) -> None:
    write_world(tmp_path, **SIZES, seed=3)
    files = sorted(p.relative_to(world) for p in world.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    for name in files:
        assert (world / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_other_seed_or_split_gives_another_scene() -> None:
    first = make_scene(0, "train", 5).pixels
    assert np.array_equal(first, make_scene(0, "train", 5).pixels)
    assert not np.array_equal(first, make_scene(1, "train", 5).pixels)
    assert not np.array_equal(first, make_scene(0, "dev", 5).pixels)


def test_splits_are_disjoint_and_the_held_out_style_stays_out(world: Path) -> None:
    seen: set[int] = set()
    for split, size in zip(SPLITS, SIZES.values(), strict=True):
        images = load(world, f"instances_{split}")["images"]
        ids = {image["id"] for image in images}
        assert len(ids) == size and not ids & seen
        seen |= ids
        allowed = {UNSEEN_STYLE} if split == "test_unseen_style" else set(TRAIN_STYLES)
        assert {image["style"] for image in images} <= allowed
    assert UNSEEN_STYLE not in TRAIN_STYLES


@pytest.mark.parametrize("split", SPLITS)
def test_instances_are_sound_coco(world: Path, split: str) -> None:
    coco = load(world, f"instances_{split}")
    assert [c["id"] for c in coco["categories"]] == [c.id for c in CATEGORIES]
    images = {image["id"]: image for image in coco["images"]}
    assert len({a["id"] for a in coco["annotations"]}) == len(coco["annotations"])
    assert {a["image_id"] for a in coco["annotations"]} == set(images), "a scene without objects"
    for annotation in coco["annotations"]:
        left, top, width, height = annotation["bbox"]
        assert left >= 0 and top >= 0 and width > 0 and height > 0
        assert left + width <= IMAGE_SIZE and top + height <= IMAGE_SIZE
        assert 0 < annotation["area"] <= width * height
        assert annotation["category_id"] in BY_ID and annotation["iscrowd"] == 0
    for image in images.values():
        path = world / "images" / split / image["file_name"]
        assert Image.open(path).size == (image["width"], image["height"])
        assert image["context"] in {context.name for context in CONTEXTS}


def test_objects_are_visible() -> None:
    for index in range(60):
        scene = make_scene(0, "train", index)
        assert 1 <= len(scene.objects) <= MAX_OBJECTS
        for number, item in enumerate(scene.objects):
            assert item.visible >= MIN_VISIBLE
            assert item.area == (scene.instances == number).sum()


def test_pictures_are_hard() -> None:
    """Small things, hidden things and several of one kind, each often enough to be measured."""
    objects, counts = [], Counter()
    for index in range(400):
        scene = make_scene(0, "train", index)
        objects += scene.objects
        counts.update(Counter(item.category for item in scene.objects).values())
    assert 0.05 < np.mean([item.visible < 0.6 for item in objects]) < 0.15
    assert 0.10 < np.mean([item.area < 150 for item in objects]) < 0.20
    several = sum(number for count, number in counts.items() if count > 1)
    assert 0.25 < several / counts.total() < 0.40 and counts[3] > 50


def test_coloured_things_have_the_color_that_is_told(world: Path) -> None:
    seen: Counter[str] = Counter()
    for index in range(150):
        for item in make_scene(0, "train", index).objects:
            assert (item.color in COLOURS) if item.category in COLOURED else item.color is None
            seen[str(item.color)] += 1
    assert set(COLOURS) <= set(seen)
    for annotation in load(world, "instances_train")["annotations"]:
        told = annotation.get("attributes")
        painted = BY_ID[annotation["category_id"]].name in COLOURED
        assert (told is not None and set(told) == {"color"}) if painted else told is None


@pytest.mark.parametrize("style", [*TRAIN_STYLES, UNSEEN_STYLE])
def test_dye_gives_most_of_a_sprite_the_hue(style: str) -> None:
    for name in sorted(COLOURED):
        image = sprite(style, sprite_cells(name)[0])
        before, visible = np.asarray(image)[..., :3], np.asarray(image)[..., 3] > 96
        red, blue = (np.asarray(dye(image, color))[..., :3].astype(int) for color in ("red", "blue"))
        assert np.array_equal(np.asarray(dye(image, "red"))[..., 3], np.asarray(image)[..., 3])
        redder = (red[..., 0] > red[..., 2] + 40) & (blue[..., 2] > blue[..., 0] + 40)
        assert redder[visible].mean() > 0.25, (style, name, before.shape)


def test_every_category_has_a_sprite_in_every_style() -> None:
    for style in (*TRAIN_STYLES, UNSEEN_STYLE):
        for category in CATEGORIES:
            cells = sprite_cells(category.name)
            assert len(cells) == len(category.emoji)
            assert all(min(sprite(style, cell).size) >= 4 for cell in cells)


def test_contexts_name_known_categories_and_most_of_them_are_typical_somewhere() -> None:
    named = {name for context in CONTEXTS for name in typical_objects(context.name)}
    assert named <= set(BY_NAME)
    assert set(BY_NAME) - named == set()


def test_vqa_files_pair_up_with_ten_answers(world: Path) -> None:
    for split in SPLITS:
        asked = load(world, f"questions_{split}")["questions"]
        told = load(world, f"vqa_{split}")["annotations"]
        assert [q["question_id"] for q in asked] == [a["question_id"] for a in told]
        assert len({q["question_id"] for q in asked}) == len(asked)
        for annotation in told:
            assert {a["answer"] for a in annotation["answers"]} == {annotation["multiple_choice_answer"]}
            assert len(annotation["answers"]) == 10


def test_web_captions_are_written_for_train_only(world: Path) -> None:
    web = load(world, "captions_web_train")
    assert web["info"]["noise_share"] == NOISE_SHARE
    assert len(web["annotations"]) == 5 * SIZES["train"]
    assert not list((world / "annotations").glob("captions_web_[!t]*"))
    assert not list((world / "annotations").glob("*.part"))


def test_a_killed_attempt_is_drawn_anew_with_the_same_bytes(tmp_path: Path) -> None:
    recipe = stage.Recipe(run_dir=tmp_path, train=2, dev=1, test=1, unseen=0)
    with pytest.raises(KeyboardInterrupt), stage.RunFolder.open(recipe, {}) as folder:
        write_world(folder.work, train=2, dev=1, test=1, unseen=0)
        (folder.work / "images" / "train" / "cut.png").write_bytes(b"half a picture")
        raise KeyboardInterrupt
    again = stage.run(recipe).manifest()
    assert "images/train/cut.png" not in again["outputs"]
    elsewhere = stage.run(recipe.model_copy(update={"run_dir": tmp_path / "calm"})).manifest()
    assert again["output_digest"] == elsewhere["output_digest"]


def test_a_used_folder_is_refused(world: Path) -> None:
    with pytest.raises(FileExistsError, match="fresh folder"):
        write_world(world, train=1, dev=0, test=0, unseen=0)
