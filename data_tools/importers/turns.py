"""Conversations as datasets publish them, as our messages, with the images' placeholders taken out.

Publishers mark an image by a token in the text, `<image>` mostly. In our rows the images stand before the
first user turn's text, so the token is taken out where its format puts it: at the start or the end of the
first user turn, once an image. Anywhere else `<image>` is text that somebody wrote, and stays. An image
marked in the middle of a sentence or in a later turn cannot be said in our rows: the row is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from align.rows.schema import Message
from data_tools.importers.unusable import Unusable

PLACEHOLDER = "<image>"
Role = Literal["system", "user", "assistant"]
_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
}


def text_of(value: Any, what: str) -> str:
    """A field that must be text with something in it.

    Raises:
        Unusable: it is missing, empty or no text.
    """
    if not isinstance(value, str):
        raise Unusable(f"{what} is no text", type(value).__name__)
    if not value.strip():
        raise Unusable(f"{what} is empty")
    return value


def read_turns(value: Any) -> list[Message]:
    """Turns of `{"from", "value"}` (LLaVA, ShareGPT) or `{"role", "content"}`, in order.

    Raises:
        Unusable: not such a list, an unknown role, or a turn without text.
    """
    if not isinstance(value, list) or not value:
        raise Unusable("no conversation", type(value).__name__)
    turns = []
    for turn in value:
        if not isinstance(turn, dict):
            raise Unusable("a turn is no object", type(turn).__name__)
        name = turn.get("from", turn.get("role"))
        role = _ROLES.get(name.lower()) if isinstance(name, str) else None
        if role is None:
            raise Unusable("unknown role", repr(name)[:100])
        turns.append(Message(role=role, content=text_of(turn.get("value", turn.get("content")), "a turn")))
    return turns


def check_order(turns: Sequence[Message]) -> list[Message]:
    """Turns that alternate from the user's on, an optional system turn before; answers that nobody asked for,
    with which cut conversations begin, are left out.

    Raises:
        Unusable: the roles do not alternate, or the last word is not the assistant's.
    """
    system = [turn for turn in turns[:1] if turn.role == "system"]
    rest = list(turns[len(system) :])
    while rest and rest[0].role == "assistant":
        rest.pop(0)
    expected = ["user", "assistant"] * len(rest)
    if any(turn.role != role for turn, role in zip(rest, expected, strict=False)):
        raise Unusable("roles do not alternate", " ".join(turn.role for turn in turns[:12]))
    if not rest or rest[-1].role != "assistant":
        raise Unusable("the conversation does not end with an answer")
    return system + rest


def take_placeholders(turns: Sequence[Message], num_images: int) -> list[Message]:
    """The turns without the placeholders of their `num_images` images.

    Raises:
        Unusable: an image marked elsewhere than at the ends of the first user turn, fewer placeholders than
            images, or a turn that holds nothing else.
    """
    first = next((k for k, turn in enumerate(turns) if turn.role == "user"), None)
    if num_images == 0:
        return list(turns)
    if first is None:
        raise Unusable("an image and no user turn")
    text, taken = _strip_ends(turns[first].text, num_images)
    user_texts = [text, *(turn.text for turn in turns[first + 1 :] if turn.role == "user")]
    if taken < num_images and any(PLACEHOLDER in part for part in user_texts):
        raise Unusable("an image stands inside the text or in a later turn", text[:100])
    if 0 < taken < num_images:
        raise Unusable("fewer image placeholders than images", f"{taken} for {num_images}")
    if not text:
        raise Unusable("a turn is empty", "nothing but the image's placeholder")
    return [*turns[:first], Message(role="user", content=text), *turns[first + 1 :]]


def question_turn(question: str, num_images: int = 0) -> list[Message]:
    """A prompt of one user turn, without the placeholders of the images that its format marks in the text."""
    return take_placeholders([Message(role="user", content=question)], num_images)


def answer_turn(answer: str) -> list[Message]:
    """An answer of one assistant turn."""
    return [Message(role="assistant", content=answer)]


def joined(parts: Iterable[str]) -> str:
    """Non-empty parts, a line each."""
    return "\n".join(part for part in parts if part.strip())


def _strip_ends(text: str, num_images: int) -> tuple[str, int]:
    """The text without up to `num_images` placeholders at its ends, and how many those were."""
    rest, taken = text.strip(), 0
    while taken < num_images and rest.startswith(PLACEHOLDER):
        rest, taken = rest[len(PLACEHOLDER) :].lstrip(), taken + 1
    while taken < num_images and rest.endswith(PLACEHOLDER):
        rest, taken = rest[: -len(PLACEHOLDER)].rstrip(), taken + 1
    return (rest, taken) if taken else (text, 0)
