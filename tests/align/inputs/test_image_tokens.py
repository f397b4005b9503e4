"""What is counted from an image's size equals what the real processor makes of the image, in every family."""

from __future__ import annotations

import random
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from align.errors import AlignError
from align.inputs.budget import TokenBudget
from align.inputs.chat import keeps_places, render
from align.inputs.image_tokens import Expansion, ImageTokens
from align.models.loading import ModelSection, load_processor
from align.rows.messages import ImagePart, Message, TextPart
from tests.twins import IMAGE_TWINS, NEEDED, Twins

NUM_SIZES = 500
ASK = [Message(role="user", content="What is this?\n\nSay it."), Message(role="assistant", content="A cat.")]


def load(folder: Path) -> Any:
    return load_processor(ModelSection(path=str(folder)))


def random_sizes(number: int, longest: int = 160) -> list[tuple[int, int]]:
    """(height, width), from a seeded generator; every tenth is a stripe."""
    draw = random.Random(3)
    sides = [(draw.randint(9, longest), draw.randint(9, longest)) for _ in range(number)]
    return [
        (max(9, height // 6), width) if k % 10 == 0 else (height, width)
        for k, (height, width) in enumerate(sides)
    ]


def processed_length(processor: Any, text: str, sizes: list[tuple[int, int]]) -> int:
    """Tokens that the processor itself makes of the text and pictures of these sizes."""
    from PIL import Image

    images = [Image.new("RGB", (width, height), (90, 40, 10)) for height, width in sizes]
    made = processor(text=[text], images=[images], add_special_tokens=False)
    return len(made["input_ids"][0])


@pytest.mark.parametrize("name", IMAGE_TWINS)
def test_the_count_is_the_processors(twins: Twins, name: str) -> None:
    processor = load(twins(name))
    budget, text = TokenBudget(processor), render(processor, ASK, 1, add_generation_prompt=False)
    sizes = random_sizes(NUM_SIZES)
    counted = budget.lengths([([text], [size]) for size in sizes])
    wrong = [
        (size, count, made)
        for size, count in zip(sizes, counted, strict=True)
        if count != (made := processed_length(processor, text, [size]))
    ]
    assert wrong == []


@pytest.mark.parametrize("name", [name for name in IMAGE_TWINS if name not in ("blip-2", "llava_next")])
def test_two_images_and_a_completion(twins: Twins, name: str) -> None:
    """BLIP-2 takes one image a text; LLaVA-NeXT's twin is counted per image like LLaVA's."""
    processor = load(twins(name))
    text = render(processor, ASK, 2, add_generation_prompt=False)
    sizes = random_sizes(20)
    pairs = list(zip(sizes[::2], sizes[1::2], strict=True))
    counted = TokenBudget(processor).lengths([([text, "And more."], pair) for pair in pairs])
    extra = len(processor.tokenizer("And more.", add_special_tokens=False)["input_ids"])
    assert counted == [processed_length(processor, text, list(pair)) + extra for pair in pairs]


@pytest.mark.parametrize("name", [name for name in IMAGE_TWINS if name not in ("blip-2", "paligemma")])
def test_pictures_inside_the_text_and_in_a_later_turn(twins: Twins, name: str) -> None:
    """BLIP-2 and PaliGemma take one turn with the pictures before it."""
    processor = load(twins(name))
    messages = [
        Message(
            role="user", content=[TextPart(text="A: "), ImagePart(), TextPart(text="\nB: "), ImagePart()]
        ),
        Message(role="assistant", content="A cat."),
        Message(role="user", content=[TextPart(text="And "), ImagePart(), TextPart(text=", what is it?")]),
        Message(role="assistant", content="A dog."),
    ]
    text = render(processor, messages, 3, add_generation_prompt=False)
    sizes = random_sizes(3)
    assert TokenBudget(processor).lengths([([text], sizes)]) == [processed_length(processor, text, sizes)]


def test_which_templates_keep_a_picture_inside_its_text(twins: Twins) -> None:
    built = {name for name in IMAGE_TWINS if name not in NEEDED or find_spec(NEEDED[name])}
    kept = {name for name in built if keeps_places(load(twins(name)))}
    assert built - kept == {"blip-2"}


def test_runs_are_written_once(twins: Twins) -> None:
    processor = load(twins("gemma3"))
    expansion = ImageTokens(processor).of((20, 20))
    assert expansion == Expansion(
        "\n\n<start_of_image><image_soft_token><end_of_image>\n\n", processor.image_seq_length - 1
    )


def test_placeholders_must_be_as_many_as_images(twins: Twins) -> None:
    tokens = ImageTokens(load(twins("llava")))
    with pytest.raises(AlignError, match="one placeholder '<image>' for each of 2 images"):
        tokens.expand(["<image> once"], [(9, 9), (9, 9)])


def test_an_unknown_processor_is_named() -> None:
    class FuyuProcessor:
        image_token = "|SPEAKER|"

    with pytest.raises(AlignError, match="no rule how many tokens an image takes in FuyuProcessor"):
        ImageTokens(FuyuProcessor())
