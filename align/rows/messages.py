"""One turn of a conversation, and where its pictures stand.

A turn's content is text, or a list of parts, text and pictures, as TRL and transformers write them. A row
lists its pictures apart (`images`); the image parts of its turns, in order, are those pictures. A row whose
turns are all plain text means that its pictures stand before the text of the first user turn, and a row that
says the same with parts is brought to this form: one meaning, one spelling, one content key.

    "images": ["a.png", "b.png"]
    {"role": "user", "content": [{"type": "text", "text": "Is "}, {"type": "image"},
                                 {"type": "text", "text": " older than "}, {"type": "image"},
                                 {"type": "text", "text": "?"}]}
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator


class BaseRow(BaseModel):
    """A row of any kind: unknown fields and coerced types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(BaseRow):
    """Words between two pictures."""

    type: Literal["text"] = "text"
    text: str


class ImagePart(BaseRow):
    """The place of the row's next picture."""

    type: Literal["image"] = "image"


Part = TextPart | ImagePart


class Message(BaseRow):
    """One turn; `content` is text alone, or parts in the order in which the model reads them.

    `loss` false, which only instruction rows may have: nothing of this assistant turn is learnt. `reasoning`
    (also read as `reasoning_content`): what an assistant thinks before it says the content.
    """

    role: Literal["system", "user", "assistant"]
    content: str | list[Part]
    loss: bool = Field(default=True, exclude_if=bool)
    reasoning: str = Field(
        default="",
        validation_alias=AliasChoices("reasoning", "reasoning_content"),
        exclude_if=operator.not_,
    )

    @field_validator("reasoning", mode="before")
    @classmethod
    def _none_is_no_thought(cls, reasoning: Any) -> Any:
        """Parquet gives every turn every key."""
        return "" if reasoning is None else reasoning

    @model_validator(mode="after")
    def _assistants_think(self) -> Message:
        if self.reasoning and self.role != "assistant":
            raise ValueError(f"reasoning in a turn of the {self.role}; only an assistant thinks")
        return self

    @field_validator("content", mode="before")
    @classmethod
    def _read(cls, content: Any) -> Any:
        """One clear error instead of one for each thing that content may be."""
        if isinstance(content, str):
            return content
        if not isinstance(content, list):
            raise ValueError(f"neither text nor a list of parts but {type(content).__name__}")
        return [_part(part) for part in content]

    @field_validator("content", mode="after")
    @classmethod
    def _settled(cls, content: str | list[Part]) -> str | list[Part]:
        """Neighbouring texts as one, none that is empty; text alone as a plain string."""
        if isinstance(content, str):
            return content
        joined: list[Part] = []
        for part in content:
            if isinstance(part, TextPart) and joined and isinstance(joined[-1], TextPart):
                joined[-1] = TextPart(text=joined[-1].text + part.text)
            else:
                joined.append(part)
        kept = [part for part in joined if isinstance(part, ImagePart) or part.text]
        if not any(isinstance(part, ImagePart) for part in kept):
            return "".join(part.text for part in kept if isinstance(part, TextPart))
        return kept

    @property
    def text(self) -> str:
        """What is said, its pictures left out."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def marked(self) -> str:
        """What is said with `[image]` where a picture stands in it; for people and for judges' prompts."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text if isinstance(part, TextPart) else "[image]" for part in self.content)

    @property
    def num_images(self) -> int:
        """Pictures that stand in this turn's parts."""
        return (
            0 if isinstance(self.content, str) else sum(isinstance(part, ImagePart) for part in self.content)
        )


def _part(value: Any) -> Part:
    if isinstance(value, TextPart | ImagePart):
        return value
    if isinstance(value, dict):
        # Parquet gives every part every key: {"type": "image", "text": null}.
        filled = {key: one for key, one in value.items() if one is not None}
        if filled == {"type": "image"}:
            return ImagePart()
        if set(filled) == {"type", "text"} and filled["type"] == "text" and isinstance(filled["text"], str):
            return TextPart(text=filled["text"])
        if filled.get("type") in ("image", "image_url"):
            raise ValueError("a picture inside its part; `align import` writes it into the row's `images`")
    shown = str(value)[:60]
    raise ValueError(f'a part is {{"type": "text", "text": ...}} or {{"type": "image"}}, not {shown}')


def said(messages: Sequence[Message]) -> list[list[Any]]:
    """(role, content) of each turn as plain JSON values, and its reasoning where it has one: what an answer's
    identity is made of."""
    turns = [message.model_dump(include={"role", "content", "reasoning"}) for message in messages]
    return [[turn["role"], turn["content"], *filter(None, [turn.get("reasoning")])] for turn in turns]


def settled(messages: list[Message], num_images: int) -> list[Message]:
    """The turns of a row with `num_images` pictures, in the one spelling of what they mean.

    Raises:
        ValueError: image parts not as many as the row's pictures, or in a turn that is not the user's.
    """
    placed = sum(message.num_images for message in messages)
    if placed == 0:
        return messages
    if placed != num_images:
        raise ValueError(f"{placed} image parts for {num_images} images")
    if any(message.num_images and message.role != "user" for message in messages):
        raise ValueError("an image part in a turn that is not the user's")
    first = next(number for number, message in enumerate(messages) if message.role == "user")
    content = messages[first].content
    if messages[first].num_images < placed or isinstance(content, str):
        return messages
    if any(isinstance(part, TextPart) for part in content[:placed]):
        return messages
    plain = messages[first].model_copy(update={"content": messages[first].text})
    return [*messages[:first], plain, *messages[first + 1 :]]


def placed_parts(messages: Sequence[Message], num_images: int) -> list[list[dict[str, Any]]]:
    """Each turn's content in transformers' structured form, every picture at its place.

    Args:
        num_images: of the row; where no turn says where they stand, they come before the first user text.

    Raises:
        ValueError: pictures without a user turn to stand in, or other than as many as the parts say.
    """
    placed = sum(message.num_images for message in messages)
    if placed and placed != num_images:
        raise ValueError(f"{placed} image parts for {num_images} images")
    waiting = 0 if placed else num_images
    turns = []
    for message in messages:
        if isinstance(message.content, str):
            parts: list[dict[str, Any]] = [{"type": "text", "text": message.content}]
        else:
            parts = [part.model_dump() for part in message.content]
        if message.role == "user" and waiting:
            parts = [{"type": "image"} for _ in range(waiting)] + parts
            waiting = 0
        turns.append(parts)
    if waiting:
        raise ValueError(f"{waiting} images and no user turn to put them in")
    return turns
