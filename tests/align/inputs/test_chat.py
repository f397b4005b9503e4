"""Messages and images as model inputs: one form for training and for the server."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import AutoConfig, AutoProcessor, AutoTokenizer

from align.config.model_ref import ModelRef
from align.errors import AlignError
from align.inputs.chat import check_text, image_tokens, message_parts, openai_messages, render
from align.models.image_words import image_words
from align.models.loading import ModelSection, load_processor
from align.rows.schema import Message
from tests.twins import IMAGE_TWINS, Twins

TURNS = [
    Message(role="user", content="What is this?"),
    Message(role="assistant", content="A cat."),
    Message(role="user", content="Sure?"),
]


def test_images_stand_before_the_first_user_text_only() -> None:
    parts = message_parts(TURNS, num_images=2)
    assert [part["type"] for part in parts[0]["content"]] == ["image", "image", "text"]
    assert [part["type"] for part in parts[2]["content"]] == ["text"]


def test_the_server_gets_the_original_bytes() -> None:
    data = b"\x89PNG not decoded here"
    sent = openai_messages(TURNS, [data])
    url = sent[0]["content"][0]["image_url"]["url"]
    assert url.startswith("data:image/png;base64,")
    assert base64.b64decode(url.split(",", 1)[1]) == data
    assert sent[1] == {"role": "assistant", "content": "A cat."}


def test_render_holds_one_placeholder_an_image(base_checkpoint: Path) -> None:
    processor = load_processor(ModelSection(path=str(base_checkpoint)))
    prompt = render(processor, TURNS[:1], 1, add_generation_prompt=True)
    whole = render(processor, TURNS[:2], 1, add_generation_prompt=False)
    assert prompt.count("<image>") == 1
    assert whole.startswith(prompt)
    assert whole.removeprefix(prompt).strip() == "A cat.</s>"


def test_an_image_token_in_a_text_is_refused(base_checkpoint: Path) -> None:
    tokens = image_tokens(load_processor(ModelSection(path=str(base_checkpoint))))
    assert tokens == ["<image>"]
    check_text(["an image"], tokens)
    with pytest.raises(AlignError, match="contains the image token '<image>'"):
        check_text(["fine", "say <image> please"], tokens)


@pytest.mark.parametrize("name", IMAGE_TWINS)
def test_a_text_never_becomes_an_image(twins: Twins, name: str) -> None:
    """The token that the model takes for an image is refused; `<image>` is a word where it is another one."""
    config: Any = AutoConfig.from_pretrained(twins(name))
    processor: Any = AutoProcessor.from_pretrained(twins(name))
    processor.chat_template = processor.chat_template or processor.tokenizer.chat_template
    image_id = getattr(config, "image_token_id", None) or config.image_token_index
    own, refused = processor.tokenizer.convert_ids_to_tokens(image_id), image_tokens(processor)
    with pytest.raises(AlignError, match="contains the image token"):
        check_text([f"say {own} please"], refused)

    def images(word: str) -> int:
        turns = [
            Message(role="user", content=f"Say {word}."),
            Message(role="assistant", content=f"A {word}."),
        ]
        text = render(processor, turns, 1, add_generation_prompt=False)
        made = processor(text=[text], images=[[Image.new("RGB", (40, 24))]], add_special_tokens=False)
        return list(made["input_ids"][0]).count(image_id)

    if "<image>" not in refused:
        assert images("<image>") == images("cat") > 0


@pytest.mark.parametrize("name", IMAGE_TWINS)
def test_what_stands_around_an_image_is_no_text_either(twins: Twins, name: str) -> None:
    processor: Any = AutoProcessor.from_pretrained(twins(name))
    processor.chat_template = processor.chat_template or processor.tokenizer.chat_template
    texts = [render(processor, TURNS[:1], count, add_generation_prompt=True) for count in (0, 1)]
    seen = processor(text=[texts[1]], images=[[Image.new("RGB", (90, 60))]])["input_ids"][0]
    plain = processor.tokenizer(texts[0])["input_ids"]
    added = {number: word for word, number in processor.tokenizer.get_added_vocab().items() if word.strip()}
    own = {processor.tokenizer.bos_token_id, *plain}
    around = {added[number] for number in set(map(int, seen)) - own if number in added}
    assert around and around <= set(image_tokens(processor))


def test_images_need_a_user_turn() -> None:
    with pytest.raises(AlignError, match="no user turn"):
        message_parts([Message(role="system", content="x")], num_images=1)


@pytest.mark.parametrize("name", IMAGE_TWINS)
def test_the_files_alone_tell_the_image_token(twins: Twins, name: str) -> None:
    config = AutoConfig.from_pretrained(twins(name))
    number = getattr(config, "image_token_id", None)
    number = config.image_token_index if number is None else number
    token = AutoTokenizer.from_pretrained(twins(name)).convert_ids_to_tokens(number)
    assert token in image_words(ModelRef.of(twins(name)))


def test_a_text_only_model_has_no_image_words(twins: Twins) -> None:
    assert image_words(ModelRef.of(twins("llama"))) == ()
