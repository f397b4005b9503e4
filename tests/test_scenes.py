"""The embedded world: same bytes for the same seed, true answers, stated noise, COCO's formats."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_tools.scenes.categories import BY_ID, BY_NAME, CATEGORIES, CONTEXTS, typical_objects
from data_tools.scenes.coco_files import write_world
from data_tools.scenes.language import (
    NOISE_SHARE,
    Mention,
    absent_typical,
    caption,
    mentions,
    noun_phrase,
    place_of,
    questions,
    web_caption,
    with_article,
)
from data_tools.scenes.render import (
    IMAGE_SIZE,
    MIN_VISIBLE,
    SPLITS,
    TRAIN_STYLES,
    UNSEEN_STYLE,
    SceneObject,
    make_scene,
    scene_rng,
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


def named_in(text: str) -> set[str]:
    """Categories named in a text; longer names first, so that a hot dog is no dog."""
    found, text = set(), text.lower()
    forms = [(form, c.name) for c in CATEGORIES for form in (c.plural, c.name)]
    for form, name in sorted(forms, key=lambda pair: -len(pair[0])):
        text, times = re.subn(rf"\b{form}\b", " ", text)
        if times:
            found.add(name)
    return found


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
        assert 1 <= len(scene.objects) <= 6
        for number, item in enumerate(scene.objects):
            assert item.visible >= MIN_VISIBLE
            assert item.area == (scene.instances == number).sum()


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


def test_clean_captions_are_true_and_nearly_complete() -> None:
    said_count = shown_count = 0
    for index in range(300):
        scene = make_scene(0, "dev", index)
        shown = {item.category for item in scene.objects}
        text = caption(scene.context, scene.objects, scene_rng(0, "test", index))
        said = named_in(text)
        assert said and said <= shown, text
        said_count, shown_count = said_count + len(said), shown_count + len(shown)
    assert said_count / shown_count > 0.88


def test_web_captions_invent_in_the_stated_share() -> None:
    noisy = total = 0
    for index in range(1500):
        scene = make_scene(0, "train", index)
        shown = {item.category for item in scene.objects}
        text, invented = web_caption(scene.context, scene.objects, scene_rng(0, "test", index))
        assert named_in(text) - shown == set(invented), text
        assert set(invented) <= set(absent_typical(scene.context, scene.objects))
        noisy, total = noisy + bool(invented), total + 1
    assert noisy / total == pytest.approx(NOISE_SHARE, abs=0.04)


def test_the_extremes_of_noise() -> None:
    scene = make_scene(0, "train", 0)
    for share, expected in ((0.0, False), (1.0, True)):
        texts = [web_caption(scene.context, scene.objects, scene_rng(0, "n", i), share)
                 for i in range(20)]  # fmt: skip
        assert all(bool(invented) == expected for _, invented in texts)


def test_questions_are_true_and_balanced() -> None:
    answers: Counter[tuple[str, str]] = Counter()
    near = 0
    for index in range(400):
        scene = make_scene(0, "dev", index)
        counts = Counter(item.category for item in scene.objects)
        for question in questions(scene.context, scene.objects, scene_rng(0, "test", index)):
            answers[question.kind, question.answer] += 1
            name, category = question.category, BY_NAME[question.category]
            if question.kind == "exists":
                assert question.answer == ("yes" if counts[name] else "no")
                near += question.answer == "no" and name in typical_objects(scene.context)
            elif question.kind == "how many":
                assert question.answer == str(counts[name]) and category.plural in question.text
            elif question.kind == "where":
                (item,) = (o for o in scene.objects if o.category == name)
                assert question.answer == place_of(item)
            else:
                same = [n for n in counts if BY_NAME[n].supercategory == category.supercategory]
                assert same == [name] and question.answer == name
    assert answers["exists", "yes"] == answers["exists", "no"]
    assert near / answers["exists", "no"] >= 0.5
    assert {kind for kind, _ in answers} == {"exists", "how many", "where", "what"}


def test_places_are_clear_of_the_boundaries() -> None:
    def at(left: int) -> str | None:
        return place_of(SceneObject("dog", (left, 0, 20, 20), 400, 1.0))

    # Thirds end at 32 and 64; a centre within 4 pixels of them has no clear place.
    assert [at(x) for x in (0, 18, 19, 25, 26, 38, 50, 51, 58, 76)] == [
        "left", "left", None, None, "middle", "middle", "middle", None, "right", "right",
    ]  # fmt: skip


def test_mentions_count_and_place() -> None:
    objects = [
        SceneObject("cup", (0, 0, 20, 20), 100, 1.0),
        SceneObject("cup", (40, 0, 20, 20), 100, 1.0),
        SceneObject("dog", (70, 0, 20, 20), 300, 1.0),
    ]
    assert mentions(objects) == [Mention("dog", 1, "right"), Mention("cup", 2, None)]


def test_plurals_and_articles() -> None:
    assert [noun_phrase(*pair) for pair in (
        ("cup", 2), ("person", 2), ("sheep", 3), ("knife", 2), ("mouse", 2), ("bus", 4),
        ("skis", 2), ("wine glass", 2), ("broccoli", 2), ("person", 1),
    )] == [
        "two cups", "two people", "three sheep", "two knives", "two mice", "four buses",
        "two pairs of skis", "two wine glasses", "two heads of broccoli", "a person",
    ]  # fmt: skip
    assert with_article("apple") == "an apple"
    assert with_article("scissors") == "a pair of scissors"
    assert with_article("broccoli") == "some broccoli"


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


def test_a_used_folder_is_refused(world: Path) -> None:
    with pytest.raises(FileExistsError, match="fresh folder"):
        write_world(world, train=1, dev=0, test=0, unseen=0)
