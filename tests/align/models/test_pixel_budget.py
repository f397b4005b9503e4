"""One pixel budget: what the collator, the token count and the merged checkpoint's files make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from align.config.model_ref import ModelRef
from align.errors import AlignError
from align.inputs.budget import TokenBudget
from align.inputs.chat import render
from align.models.loading import ModelSection, load_processor
from align.models.pixel_budget import (
    longest_edge_of_patches,
    longest_edge_of_tiles,
    patch_cubes,
    patch_squares,
    whole_tiles,
)
from align.rows.messages import Message
from tests.twins import Twins

ASK = [Message(role="user", content="What is this?"), Message(role="assistant", content="A cat.")]
SIZES = [(90, 400), (400, 80)]
PATCHED, TILED, EDGED = ["qwen2_5_vl", "qwen3_vl", "glm4v", "glm46v"], ["internvl"], ["idefics3", "mistral3"]


def load(folder: Path, min_pixels: int | None = None, max_pixels: int | None = None) -> Any:
    return load_processor(ModelSection(path=str(folder), min_pixels=min_pixels, max_pixels=max_pixels))


def made(processor: Any, size: tuple[int, int]) -> int:
    text = render(processor, ASK, 1, add_generation_prompt=False)
    image = Image.new("RGB", (size[1], size[0]), (90, 40, 10))
    return len(processor(text=[text], images=[[image]], add_special_tokens=False)["input_ids"][0])


@pytest.mark.parametrize("name", [*PATCHED, *TILED, *EDGED])
def test_fewer_pixels_are_fewer_tokens_counted_and_made_and_kept(
    twins: Twins, tmp_path: Path, name: str
) -> None:
    plain, small = load(twins(name)), load(twins(name), max_pixels=2 * 1024)
    small.save_pretrained(str(tmp_path))
    (tmp_path / "config.json").write_bytes((twins(name) / "config.json").read_bytes())
    kept = load(tmp_path)
    text = render(plain, ASK, 1, add_generation_prompt=False)
    for size in SIZES:
        counted = TokenBudget(small).lengths([([text], [size])])
        assert counted == [made(small, size)] == [made(kept, size)]
        assert made(small, size) < made(plain, size)


@pytest.mark.parametrize("name", [*PATCHED, *TILED])
def test_more_pixels_at_least_are_more_tokens(twins: Twins, name: str) -> None:
    plain, large = load(twins(name)), load(twins(name), min_pixels=4 * 1024)
    assert made(large, (33, 33)) > made(plain, (33, 33))


class Squares:
    """Qwen2-VL's numbers: a token is 28 x 28 pixels."""

    class size:
        shortest_edge, longest_edge = 3136, 1003520

    patch_size, merge_size = 14, 2


class Cubes:
    """GLM-4.1V's numbers: two frames of 28 x 28 pixels, 16 tokens at least and 24,576 / 4 at most."""

    class size:
        shortest_edge, longest_edge = 12544, 9633792

    patch_size, merge_size, temporal_patch_size = 14, 2, 2


class Tiles:
    """InternVL's numbers."""

    class size:
        height = width = 448

    min_patches, max_patches = 1, 12


class Rows:
    """Mistral Small 3.1's numbers."""

    patch_size: ClassVar = {"height": 14, "width": 14}


class Edge:
    """SmolVLM's numbers."""

    max_image_size: ClassVar = {"longest_edge": 512}


def test_rules_by_hand() -> None:
    assert patch_squares(Squares, None, 200704) == {"size": {"shortest_edge": 3136, "longest_edge": 200704}}
    assert patch_cubes(Cubes, None, 100352) == {"size": {"shortest_edge": 12544, "longest_edge": 200704}}
    assert patch_cubes(Cubes, 12544, None) == {"size": {"shortest_edge": 25088, "longest_edge": 9633792}}
    assert whole_tiles(Tiles, None, 1_000_000) == {"min_patches": 1, "max_patches": 4}
    assert whole_tiles(Tiles, 500_000, None) == {"min_patches": 3, "max_patches": 12}
    assert longest_edge_of_patches(Rows, None, 1_000_000) == {"size": {"longest_edge": 980}}
    assert longest_edge_of_tiles(Edge, None, 1_300_000) == {"size": {"longest_edge": 1024}}


@pytest.mark.parametrize(
    ("rule", "low", "high", "said"),
    [
        (lambda *bounds: patch_squares(Squares, *bounds), 5000, 4000, "more than the most"),
        (lambda *bounds: patch_squares(Squares, *bounds), 1, 500, "one image token is 28 x 28"),
        (lambda *bounds: whole_tiles(Tiles, *bounds), None, 1000, "a tile has 200704 pixels"),
        (lambda *bounds: longest_edge_of_patches(Rows, *bounds), 10, None, "has no min_pixels"),
        (lambda *bounds: longest_edge_of_patches(Rows, *bounds), None, 700, "one image token is 28 x 28"),
        (lambda *bounds: longest_edge_of_tiles(Edge, *bounds), 10, None, "has no min_pixels"),
        (lambda *bounds: longest_edge_of_tiles(Edge, *bounds), None, 1000, "a tile has 512 x 512"),
    ],
)
def test_what_cannot_be_kept_is_said(rule: Any, low: int | None, high: int | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rule(low, high)


@pytest.mark.parametrize("name", ["llava", "llava_next", "gemma3", "idefics2", "paligemma"])
def test_families_of_one_image_size_refuse_it(twins: Twins, name: str) -> None:
    with pytest.raises(AlignError, match="has no pixel budget"):
        load(twins(name), max_pixels=4096)


def test_a_text_only_model_refuses_it(twins: Twins) -> None:
    with pytest.raises(AlignError, match="has no pixel budget"):
        load(twins("llama"), max_pixels=4096)


def test_answers_under_another_budget_are_other_answers(twins: Twins) -> None:
    path = str(twins("qwen2_5_vl"))
    plain, small = ModelRef(path=path), ModelRef(path=path, max_pixels=2048)
    assert plain.answering_digest() == plain.digest() == small.digest() != small.answering_digest()
    assert plain.model_dump() == path and small.model_dump() == {
        "path": path,
        "revision": None,
        "max_pixels": 2048,
    }
