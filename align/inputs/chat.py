"""The only place where messages and images become model inputs.

A picture stands where the row's messages say (`align.rows.messages`), else before the text of the first user
turn: for training (`render`), for TRL's collators (which build the same parts) and for the server
(`openai_messages`). Some chat templates move a turn's pictures to its front (`keeps_places`). A text that
spells one of the model's image tokens would become an image for the tokenizer; `check_text` refuses it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from typing import Any

from align.errors import AlignError
from align.inputs.images import mime_type
from align.models.thinking import is_thinking, knows_thoughts, template_kwargs, template_of
from align.rows.messages import ImagePart, Message, Part, TextPart, placed_parts
from align.rows.thoughts import split_thoughts

# Attributes under which processors keep the strings that stand for visual input.
_TOKEN_ATTRIBUTES = (
    "image_token",
    "video_token",
    "vision_start_token",
    "vision_end_token",
    "boi_token",
    "eoi_token",
    "start_image_token",
    "end_image_token",
    "fake_image_token",
    "global_image_token",
    "image_start_token",
    "image_break_token",
    "image_end_token",
    "image_thumbnail_token",
    "img_line_break_token",
    "slice_start_token",
    "slice_end_token",
    "image_id_start_token",
    "image_id_end_token",
)
# No attribute names these: where a tile stands (Idefics 3, SmolVLM, LFM2-VL), GLM-V's tags around an image.
_PLACE = re.compile(
    r"<row_\d+_col_\d+>|<\|img_row_\d+_col_\d+\|>|<global-img>|<\|(?:begin|end)_of_(?:image|video)\|>"
)


def message_parts(messages: Sequence[Message], num_images: int) -> list[dict[str, Any]]:
    """Messages in transformers' structured form, an image part at each picture's place.

    Raises:
        AlignError: images without a user turn to stand in, or not as many as the messages' image parts.
    """
    try:
        contents = placed_parts(messages, num_images)
    except ValueError as error:
        raise AlignError(str(error)) from error
    return [
        {"role": message.role, "content": parts, **_thoughts(message)}
        for message, parts in zip(messages, contents, strict=True)
    ]


def _thoughts(message: Message) -> dict[str, str]:
    """A turn's thoughts under both of the names that templates read."""
    return (
        {"reasoning_content": message.reasoning, "reasoning": message.reasoning} if message.reasoning else {}
    )


def as_read(processor: Any, messages: Sequence[Message]) -> list[Message]:
    """Turns as the template shall read them: thoughts apart from answers, and left out where they are off.

    A template that knows no thoughts reads turns as they are; thoughts within an answer's text are its text.

    Raises:
        AlignError: thoughts that do not end, or that stand apart and the template has no place for.
    """
    template = template_of(processor)
    if not knows_thoughts(template):
        if any(message.reasoning for message in messages):
            raise AlignError(
                "an answer with `reasoning`, and the chat template has no place for thoughts",
                fix="leave them out, or write them into the answer's text",
            )
        return list(messages)
    return [_answer_apart(message, is_thinking(processor)) for message in messages]


def _answer_apart(message: Message, keeps: bool) -> Message:
    if message.role != "assistant":
        return message
    said = split_thoughts(message.text)
    if not said.is_closed:
        raise AlignError("the thoughts of an answer do not end: it was cut off")
    reasoning = "\n".join(filter(None, (message.reasoning.strip(), said.reasoning))) if keeps else ""
    content = said.answer if said.is_marked else message.content
    return message.model_copy(update={"content": content, "reasoning": reasoning})


def render(processor: Any, messages: Sequence[Message], num_images: int, add_generation_prompt: bool) -> str:
    """The text that the model reads, one placeholder an image, by the checkpoint's chat template, which is
    told whether to think (`align.models.thinking`).

    Args:
        processor: or the tokenizer of a text-only model, whose templates know plain strings alone.

    Raises:
        AlignError: the template refuses the messages (say, a system turn it does not know), or images
            for a text-only model.
    """
    messages = as_read(processor, messages)
    if sees_images(processor):
        turns = message_parts(messages, num_images)
    elif num_images:
        raise AlignError(f"the model reads text only; the row has {num_images} images")
    else:
        turns = [
            {"role": message.role, "content": message.text, **_thoughts(message)} for message in messages
        ]
    try:
        return processor.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **template_kwargs(processor),
        )
    except AlignError:
        raise
    except Exception as error:  # jinja templates raise whatever they like
        roles = " ".join(message.role for message in messages)
        raise AlignError(f"the chat template refuses these messages ({roles}): {error}") from error


def keeps_places(processor: Any) -> bool:
    """Whether a picture stays where it stands in a turn's text.

    LLaVA-1.5's template and others write a turn's pictures first, whatever the order of its parts.
    """
    parts: list[Part] = [TextPart(text="before"), ImagePart(), TextPart(text="after")]
    try:
        text = render(processor, [Message(role="user", content=parts)], 1, add_generation_prompt=False)
    except AlignError:
        return False
    start = text.find("before") + len("before")
    return len(text[start : text.find("after")].strip()) > 0


def sees_images(processor: Any) -> bool:
    """True for a processor with images, False for the tokenizer of a text-only model."""
    return getattr(processor, "image_processor", None) is not None


def tokenizer_of(processor: Any) -> Any:
    """The processor's tokenizer; of a text-only model it is the tokenizer itself."""
    return getattr(processor, "tokenizer", processor)


def openai_messages(messages: Sequence[Message], images: Sequence[bytes]) -> list[dict[str, Any]]:
    """Messages for an OpenAI chat server; images travel as data URLs with their original bytes."""
    turns = message_parts(messages, len(images))
    urls = iter(f"data:{mime_type(data)};base64,{base64.b64encode(data).decode()}" for data in images)
    for turn in turns:
        for part in turn["content"]:
            if part["type"] == "image":
                part["type"] = "image_url"
                part["image_url"] = {"url": next(urls)}
    for turn in turns:
        if turn["role"] != "user" and len(turn["content"]) == 1:
            turn["content"] = turn["content"][0]["text"]
    return turns


def image_tokens(processor: Any) -> list[str]:
    """The strings that stand for visual input in this family, such as `<image>` or `<|image_pad|>`."""
    # Gemma 3's processor calls its opening tag the image token, and only its tokenizer knows the real one.
    tokenizer = getattr(processor, "tokenizer", processor)
    found = [getattr(owner, name, None) for owner in (processor, tokenizer) for name in _TOKEN_ATTRIBUTES]
    named = {str(token) for token in found if token}
    return sorted(named | {token for token in tokenizer.get_added_vocab() if _PLACE.fullmatch(token)})


def check_text(texts: Iterable[str], image_token: str | Sequence[str]) -> None:
    """Refuse texts that spell an image token: the model would look for an image there.

    Raises:
        AlignError: names the token and what stands around it.
    """
    tokens = [image_token] if isinstance(image_token, str) else list(image_token)
    for text in texts:
        for token in tokens:
            place = text.find(token)
            if place >= 0:
                around = text[max(0, place - 20) : place + len(token) + 20]
                raise AlignError(
                    f"the text contains the image token {token!r}: {around!r}",
                    fix="images belong to the row's `images`; take the token out of the text",
                )
