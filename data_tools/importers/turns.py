"""Conversations as datasets publish them, as our messages, every picture where it stands.

Publishers mark an image by a token in the text, `<image>` mostly, or by a part of its own beside parts of
text; some write the picture itself into that part. Where all pictures stand before the first user turn's
text, or behind it (which LLaVA reads as before it), our rows are plain texts; otherwise their contents are
lists of parts. As many markers as pictures, or none at all: anything else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from align.rows.messages import ImagePart, Message, TextPart
from data_tools.importers.meaning import (
    LOSS_KEYS,
    NO_PICTURE,
    REASONING_KEYS,
    present,
    refusal,
)
from data_tools.importers.pieces import Picture, listed, marked, read_parts, text_of
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
    "llava": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
}
_PLAIN = ({"from", "value"}, {"role", "content"})
_TURN_KEYS = {"from", "value", "role", "content", "text", "images", "image", *LOSS_KEYS, *REASONING_KEYS}


@dataclass(frozen=True)
class Turn:
    """One turn as it was published.

    Attributes:
        pieces: texts and the pictures between them, in order.
        parts: they came as a list of parts, whose texts are exact.
        loss: whether the turn is learnt.
        reasoning: what the assistant thought before it spoke.
    """

    role: Role
    pieces: tuple[str | Picture, ...]
    parts: bool = False
    loss: bool = True
    reasoning: str = ""

    @property
    def text(self) -> str:
        """What is said, its pictures left out."""
        return "".join(piece for piece in self.pieces if isinstance(piece, str))

    @property
    def says(self) -> bool:
        """Whether there are words in it."""
        return any(isinstance(piece, str) and not piece.isspace() for piece in self.pieces)

    @property
    def pictures(self) -> list[Picture]:
        """Its pictures in order."""
        return [piece for piece in self.pieces if isinstance(piece, Picture)]


@dataclass
class Dialogue:
    """Turns as our messages.

    Attributes:
        images: the row's, in the order of their places.
        reasoning: of each message, None where there is none.
        notes: what was understood in a way that the user should hear of.
    """

    messages: list[Message]
    images: list[str]
    reasoning: list[str | None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_turns(value: Any, note: Callable[[str], None] = lambda _: None) -> list[Turn]:
    """Turns of `{"from", "value"}` (LLaVA, ShareGPT), `{"role", "content"}` or `{"human", "assistant"}`, in
    order.

    Args:
        note: told of keys of turns that are left out.

    Raises:
        Unusable: not such a list, an unknown role, a turn without text, or a key whose meaning rows cannot
        hold.
    """
    value = _rows_of(listed(value))
    if not isinstance(value, list) or not value:
        raise Unusable("no conversation", type(value).__name__)
    turns: list[Turn] = []
    for turn in value:
        if not isinstance(turn, dict):
            raise Unusable("a turn is no object", type(turn).__name__)
        turns += [_turn(one, note) for one in _apart(turn)]
    return turns


def _rows_of(value: Any) -> Any:
    """Turns that `datasets` keeps as one object of lists, as a list of objects."""
    if not isinstance(value, dict) or not value or not all(isinstance(part, list) for part in value.values()):
        return value
    if len({len(part) for part in value.values()}) > 1:
        raise Unusable("turns in lists of unequal lengths")
    return [dict(zip(value, parts, strict=True)) for parts in zip(*value.values(), strict=True)]


def _apart(turn: dict[str, Any]) -> list[dict[str, Any]]:
    """A question with its answer (`{"human", "assistant"}`, `{"user", "assistant"}`) as two turns."""
    asked = next((name for name in ("human", "user") if name in turn), None)
    if asked is None or "assistant" not in turn or {"role", "from"} & set(turn):
        return [turn]
    rest = {key: part for key, part in turn.items() if key not in (asked, "assistant")}
    pair = [{"role": "user", "content": turn[asked]}, {"role": "assistant", "content": turn["assistant"]}]
    return [pair[0], {**rest, **pair[1]}]


def _turn(turn: dict[str, Any], note: Callable[[str], None]) -> Turn:
    name = turn.get("from", turn.get("role"))
    role = _ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise Unusable("unknown role", repr(name)[:100])
    if turn.keys() in _PLAIN and isinstance(words := turn.get("value", turn.get("content")), str):
        found = Turn(role, tuple(marked(text_of(words, "a turn"))))
        return found if found.says else _empty(found)
    for key in turn.keys() - _TURN_KEYS:
        if reason := refusal(key, turn[key], has_images=False):
            raise Unusable(reason, f"the key {str(key)[:100]!r} of a turn")
        if present(turn[key]):
            note(f"a turn's key {str(key)[:60]!r} left out")
    content = next((turn[key] for key in ("value", "content", "text") if turn.get(key) is not None), None)
    own = turn.get("images") if present(turn.get("images")) else turn.get("image")
    parts = False
    if isinstance(content, list):
        typed = read_parts(content, note)
        parts = any(isinstance(piece, Picture) for piece in typed)
        pieces = [one for piece in typed for one in (marked(piece) if isinstance(piece, str) else [piece])]
    else:
        pieces = marked(text_of(content, "a turn"))
    if present(own):
        pieces = _with_own(pieces, own if isinstance(own, list) else [own])
    found = Turn(role, tuple(pieces), parts, _learnt(turn, role), _reasoning(turn))
    return found if found.says else _empty(found)


def _empty(turn: Turn) -> Turn:
    raise Unusable("a turn is empty", "nothing but a picture" if turn.pictures else "")


def _with_own(pieces: list[str | Picture], own: list[Any]) -> list[str | Picture]:
    """A turn's own pictures at its markers, or before its text."""
    places = [place for place, piece in enumerate(pieces) if isinstance(piece, Picture)]
    if not places:
        return [*(Picture(value) for value in own), *pieces]
    if len(places) != len(own):
        raise Unusable("not as many image markers as images", f"{len(places)} for {len(own)} in a turn")
    filled = list(pieces)
    for place, value in zip(places, own, strict=True):
        filled[place] = Picture(value)
    return filled


def _learnt(turn: dict[str, Any], role: Role) -> bool:
    """Whether a turn is learnt, by whichever tool's key."""
    said = {key: turn[key] for key in LOSS_KEYS if turn.get(key) is not None}
    if not all(isinstance(value, float | int) and value in (0, 1) for value in said.values()):
        raise Unusable("a weight of the loss that rows cannot hold", str(said)[:100])
    if len({bool(value) for value in said.values()}) > 1:
        raise Unusable("a weight of the loss that rows cannot hold", f"they disagree: {said}")
    learnt = bool(next(iter(said.values()), True))
    if role != "assistant":
        if said and learnt:
            raise Unusable("a loss on a turn that is not the assistant's", str(said)[:100])
        return True
    return learnt


def _reasoning(turn: dict[str, Any]) -> str:
    said = [turn[key] for key in REASONING_KEYS if present(turn.get(key))]
    if len(said) > 1 and any(one != said[0] for one in said):
        raise Unusable("more than one reasoning in a turn")
    return text_of(said[0], "reasoning") if said else ""


def check_order(turns: Sequence[Turn]) -> list[Turn]:
    """Turns that alternate from the user's on, an optional system turn before; answers that nobody asked for,
    with which cut conversations begin, are left out.

    Raises:
        Unusable: the roles do not alternate, or the last word is not the assistant's.
    """
    found = in_order(turns)
    if not found or found[-1].role != "assistant":
        raise Unusable("the conversation does not end with an answer")
    return found


def in_order(turns: Sequence[Turn]) -> list[Turn]:
    """As `check_order`, whoever has the last word.

    Raises:
        Unusable: the roles do not alternate.
    """
    system = [turn for turn in turns[:1] if turn.role == "system"]
    rest = list(turns[len(system) :])
    while rest and rest[0].role == "assistant":
        rest.pop(0)
    expected = ["user", "assistant"] * len(rest)
    if any(turn.role != role for turn, role in zip(rest, expected, strict=False)):
        raise Unusable("roles do not alternate", " ".join(turn.role for turn in turns[:12]))
    if not rest:
        raise Unusable("the conversation does not end with an answer")
    return system + rest


def placed(
    turns: Sequence[Turn], images: Sequence[str], find: Callable[[Any], list[str]] = lambda _: []
) -> Dialogue:
    """The turns as messages, each picture at its place.

    Args:
        images: the row's own pictures, which its markers stand for in order.
        find: the path of a picture that a part or tag holds itself.

    Raises:
        Unusable: other than as many markers as pictures, pictures in a turn that is not the user's.
    """
    marked = [picture for turn in turns for picture in turn.pictures]
    if any(turn.pictures and turn.role != "user" for turn in turns):
        raise Unusable("a picture in a turn that is not the user's")
    inside = [picture for picture in marked if picture.value is not None]
    if inside and (images or len(inside) < len(marked)):
        raise Unusable("pictures both in the turns and beside them", f"{len(inside)} in the turns")
    found = [path for picture in inside for path in find(picture.value)] if inside else list(images)
    notes: list[str] = []
    if not inside:
        _check_count(turns, marked, found)
        if found and not marked:
            if all(turn.role != "user" for turn in turns):
                raise Unusable("an image and no user turn")
            notes.append("pictures without a marker, put before the first question")
    elif len(found) != len(inside):
        raise Unusable("an image part without a picture")
    messages = _messages(turns, len(marked), notes)
    reasoning = [turn.reasoning or None for turn in turns]
    return Dialogue(messages, found, reasoning if any(reasoning) else [], notes)


def _check_count(turns: Sequence[Turn], marked: Sequence[Picture], images: Sequence[str]) -> None:
    if not marked:
        return
    count = f"{len(marked)} for {len(images)}"
    if not images:
        raise Unusable(NO_PICTURE, count)
    if len(marked) != len(images) and any(turn.parts and turn.pictures for turn in turns):
        raise Unusable("not as many image parts as images", count)
    if len(marked) < len(images):
        raise Unusable("fewer image placeholders than images", count)
    if len(marked) > len(images):
        raise Unusable("more image placeholders than images", count)
    numbers = [picture.number for picture in marked if picture.number]
    if numbers and numbers != list(range(1, len(images) + 1)):
        raise Unusable("numbered images that do not stand in their order", str(numbers[:20]))


def _messages(turns: Sequence[Turn], count: int, notes: list[str]) -> list[Message]:
    """Messages of turns with `count` pictures among them; in the plain form where they stand first."""
    first = next((k for k, turn in enumerate(turns) if turn.role == "user"), 0)
    messages = []
    for place, turn in enumerate(turns):
        if not count or not (here := len(turn.pictures)):
            messages.append(Message(role=turn.role, content=turn.text, loss=turn.loss))
            continue
        pieces: Sequence[str | Picture] = turn.pieces
        if not turn.parts:
            pieces = _tidy(pieces, all_here=place == first and here == count, notes=notes)
        content = [TextPart(text=piece) if isinstance(piece, str) else ImagePart() for piece in pieces]
        messages.append(Message(role=turn.role, content=content, loss=turn.loss))
    if count and messages[first].num_images == count:
        messages[first] = _plain(messages[first], count)
    return messages


def _plain(message: Message, count: int) -> Message:
    """A turn that begins with all of the row's pictures, without their parts."""
    content = message.content
    if isinstance(content, str) or any(isinstance(part, TextPart) for part in content[:count]):
        return message
    return message.model_copy(update={"content": message.text})


def _tidy(pieces: Sequence[str | Picture], all_here: bool, notes: list[str]) -> list[str | Picture]:
    """A marked text without the line break between the pictures that it begins with and its words; pictures
    that stand behind all words of the first question come before them, as LLaVA reads them."""
    rest = list(pieces)
    pictures = [piece for piece in rest if isinstance(piece, Picture)]
    words = [place for place, piece in enumerate(rest) if isinstance(piece, str) and piece.strip()]
    if not words:
        return rest
    leading = [piece for piece in rest[: words[0]] if isinstance(piece, Picture)]
    trailing = [piece for piece in rest[words[-1] :] if isinstance(piece, Picture)]
    if all_here and len(trailing) == len(pictures):
        notes.append("pictures marked behind the question, put before it as LLaVA does")
        return [*pictures, "".join(piece for piece in rest if isinstance(piece, str)).strip()]
    if all_here and len(leading) == len(pictures):
        return [*pictures, "".join(piece for piece in rest if isinstance(piece, str)).strip()]
    if leading:
        first = rest[words[0]]
        assert isinstance(first, str)
        return [*leading, first.lstrip(), *rest[words[0] + 1 :]]
    return rest


def question_turn(question: str, num_images: int = 0, marked: bool = True) -> list[Message]:
    """A prompt of one user turn, without the placeholders of its `num_images` images.

    Args:
        marked: the format marks its images in the text. Where it does not, `<image>` is a word that somebody
            wrote, unless it stands on lines of its own, once an image.

    Raises:
        Unusable: placeholders other than as many as images, or nothing else in the text.
    """
    if not marked:
        alone = re.findall(r"^[ \t]*<image>[ \t]*$", question, re.MULTILINE)
        if not (alone and len(alone) == num_images == question.count(PLACEHOLDER)):
            return [Message(role="user", content=text_of(question, "question"))]
    turn = text_turn("user", text_of(question, "question"))
    if any(picture.value is not None for picture in turn.pictures):
        raise Unusable("a picture named in a text whose format names it elsewhere", question[:100])
    return placed([turn], [""] * num_images).messages


def answer_turn(answer: str) -> list[Message]:
    """An answer of one assistant turn."""
    return [Message(role="assistant", content=answer)]


def text_turn(role: str, text: str) -> Turn:
    """A turn of one text with its markers of pictures.

    Raises:
        Unusable: nothing but markers.
    """
    turn = Turn(_ROLES[role], tuple(marked(text)))
    if not turn.text.strip():
        raise Unusable("a turn is empty", "nothing but the image's placeholder")
    return turn


def joined(parts: Iterable[str]) -> str:
    """Non-empty parts, a line each."""
    return "\n".join(part for part in parts if part.strip())
