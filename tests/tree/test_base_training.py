"""What the embedded base is trained on: labels of patches, and the loss against naming an object twice."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from assets.dialogues import Row, RowMaker, false_attribute, half_taught  # noqa: E402
from assets.imagined import NUM_SLOTS, imagine, spread  # noqa: E402
from assets.train_vision import BACKGROUND, LABEL_OF, MANY, UNKNOWN, patch_targets  # noqa: E402
from data_tools.scenes.questions import Question  # noqa: E402
from data_tools.scenes.render import Scene, SceneObject, make_scene  # noqa: E402


def test_a_patch_is_told_what_covers_it_how_many_where_and_which_color() -> None:
    instances = np.full((96, 96), -1, np.int8)
    instances[0:24, 0:24] = 0  # four patches at the top left
    instances[84:96, 84:96] = 1  # one patch at the bottom right
    instances[48:51, 48:51] = 2  # 9 of a patch's 144 pixels: too few to name it
    objects = (
        SceneObject("cup", (0, 0, 24, 24), 576, 1.0, "red"),
        SceneObject("cup", (84, 84, 12, 12), 144, 1.0, "blue"),
        SceneObject("dog", (48, 48, 3, 3), 9, 1.0),
    )
    scene = Scene("kitchen", "noto", objects, np.zeros((96, 96, 3), np.uint8), instances)
    targets = patch_targets(scene).reshape(8, 8, 5)
    cup = LABEL_OF["cup"]
    assert targets[0, 1, :4].tolist() == [cup, 1, 0, 0]  # two cups (label 1), left, red
    assert targets[7, 7].tolist() == [cup, 1, 2, 1, 1]  # right, blue, its own anchor
    assert targets[..., 4][targets[..., 4] != UNKNOWN].sum() == 2, "one anchor an object"
    assert targets[4, 4].tolist() == [BACKGROUND, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]


def test_anchors_count_what_is_seen() -> None:
    for index in range(40):
        scene = make_scene(0, "dev", index)
        targets = patch_targets(scene)
        for name in {item.category for item in scene.objects}:
            of_kind = targets[targets[:, 0] == LABEL_OF[name]]
            there = sum(item.category == name for item in scene.objects)
            assert (of_kind[:, 4] == 1).sum() <= there
            assert set(of_kind[:, 1].tolist()) <= {min(there, MANY) - 1}


def test_imagined_scenes_are_told_as_their_slots_say() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        scene = imagine(6, rng)
        names = [mention.category for mention in scene.told]
        assert sum(mention.count for mention in scene.told) == len(scene.objects)
        assert not set(names) & set(scene.absent) and len(names) + len(scene.absent) == 12
        slots = spread(scene.objects, rng)
        assert slots.shape == (NUM_SLOTS, 4)
        held = {tuple(row) for row in slots.tolist() if row[0] != BACKGROUND}
        assert held == {tuple(row) for row in scene.objects.tolist()}


def test_false_attributes_are_of_the_same_kind_and_false() -> None:
    rng = np.random.default_rng(0)
    assert {false_attribute("two", rng) for _ in range(30)} == {"one", "three"}
    assert {false_attribute("one", rng) for _ in range(30)} == {"two"}
    assert {false_attribute("left", rng) for _ in range(30)} == {"middle", "right"}
    assert "red" not in {false_attribute("red", rng) for _ in range(30)}


def test_half_of_the_categories_answer_in_phrases() -> None:
    # COCO's ids: cup 47, dog 18.
    assert half_taught(Question("how many", "", "2", "cup")) == "2"
    assert half_taught(Question("how many", "", "2", "dog")) == "Two dogs."
    assert half_taught(Question("where", "", "left", "dog")) == "Left side."
    assert half_taught(Question("verify", "", "yes", "dog")) == "Yes"


class Words(dict[str, int]):
    """A tokenizer with a token a word."""

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        del add_special_tokens
        return [self.setdefault(word, len(self)) for word in text.split()]


def test_only_words_of_what_was_named_count_as_said_again() -> None:
    # Words by hand: 1 dog, 2 dogs, 3 bear, 4 bears, 5 anything else; uniform over eight tokens.
    maker = RowMaker(Words())  # type: ignore[arg-type]
    maker._begins = {1: (1, 2), 2: (1, 2), 3: (3, 4), 4: (3, 4)}
    row = Row(
        ids=[9, 5, 1, 5, 3, 3, 5, 5, 1],
        learnt=[False, True, True, True, True, True, False, True, True],
        branches=(6,),
    )
    targets = torch.tensor([5, 1, 5, 3, 3, 5, 1])
    mass = 1 - torch.exp(-maker.said_again([row], torch.zeros(7, 8), targets))
    # Nothing, nothing, dog, dog, dog and bears (bear itself is what comes), and a new branch begins.
    assert (mass * 8).round().tolist() == [0, 0, 2, 2, 3, 0, 0]


def test_the_tokens_that_begin_a_category() -> None:
    words = Words()
    maker = RowMaker(words)  # type: ignore[arg-type]
    assert set(maker.words_of_category(words.encode("person")[0])) == {
        words["person"], words["people"],
    }  # fmt: skip
    assert set(maker.words_of_category(words.encode("skis")[0])) == {words["skis"]}
    assert maker.words_of_category(words.encode("the")[0]) == ()
