"""What a turn is made of: texts and places of pictures, told from markers in a text or from typed parts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from data_tools.importers.meaning import AUDIO, MARKER, TOOLS, VIDEO, lone_surrogate, present, refusal
from data_tools.importers.unusable import Unusable

_TEXT_PARTS = ("text", "input_text", "output_text")
_IMAGE_PARTS = ("image", "image_url", "input_image", "img")
_PICTURE_NAMES = {*_IMAGE_PARTS, "path", "url", "bytes", "base64", "data", "source", "file", "filename"}


@dataclass(frozen=True)
class Picture:
    """A place of a picture in a turn.

    Attributes:
        value: the picture itself, as its part or tag names it; None for the next of the row's own.
        number: which of the row's own it is, from 1, where its marker says so; 0: the next.
    """

    value: Any = None
    number: int = 0


def text_of(value: Any, what: str) -> str:
    """A field that must be text with something in it.

    Raises:
        Unusable: it is missing, empty, no text, or holds half a character.
    """
    if not isinstance(value, str):
        raise Unusable(f"{what} is no text", type(value).__name__)
    if not value or value.isspace():
        raise Unusable(f"{what} is empty")
    if not value.isascii() and lone_surrogate(value):
        raise Unusable("half a character in a text", "a lone surrogate, which no UTF-8 file can hold")
    return value


def listed(value: Any) -> Any:
    """A list that a CSV file or a text column holds as JSON; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def marked(text: str) -> list[str | Picture]:
    """A text cut at its markers of pictures."""
    if "<" not in text and "[" not in text:
        return [text]
    pieces: list[str | Picture] = []
    start = 0
    for found in MARKER.finditer(text):
        if found.start() > start:
            pieces.append(text[start : found.start()])
        pieces.append(Picture(found["path"], int(found["number"] or 0)))
        start = found.end()
    return pieces + ([text[start:]] if start < len(text) else [])


def read_parts(content: list[Any], note: Callable[[str], None]) -> list[str | Picture]:
    """Typed parts, as TRL, OpenAI, Qwen and Anthropic write them; neighbouring texts become lines of one."""
    pieces: list[str | Picture] = []
    for part in content:
        piece = _part(part, note)
        if isinstance(piece, str) and pieces and isinstance(pieces[-1], str):
            pieces[-1] += "\n" + piece
        elif piece != "" or not pieces:
            pieces.append(piece)
    return pieces


def _part(part: Any, note: Callable[[str], None]) -> str | Picture:
    if isinstance(part, str):
        part = {"type": "text", "text": part}
    if not isinstance(part, dict):
        raise Unusable("a message part is neither text nor image", repr(part)[:200])
    said = {key: value for key, value in part.items() if value is not None}
    kind = said.pop("type", None) or next((name for name in ("text", *_IMAGE_PARTS) if name in said), None)
    if not isinstance(kind, str):
        raise Unusable("a message part is neither text nor image", repr(part)[:200])
    if kind in _TEXT_PARTS or kind in _IMAGE_PARTS:
        own = {"text"} if kind in _TEXT_PARTS else _PICTURE_NAMES
        for key in said.keys() - own:
            reason = "text in an image part" if key == "text" else refusal(key, said[key], has_images=False)
            if reason and present(said[key]):
                raise Unusable(reason, f"the key {str(key)[:100]!r} of a part")
            if present(said[key]):
                note(f"a part's key {str(key)[:60]!r} left out")
        return _part_text(said.get("text")) if kind in _TEXT_PARTS else Picture(_part_picture(said))
    for word, reason in (("video", VIDEO), ("audio", AUDIO), ("tool", TOOLS), ("function", TOOLS)):
        if word in kind.lower():
            raise Unusable(reason, repr(part)[:200])
    raise Unusable("a message part is neither text nor image", repr(part)[:200])


def _part_text(text: Any) -> str:
    if not isinstance(text, str):
        raise Unusable("a message part is neither text nor image", type(text).__name__)
    if lone_surrogate(text):
        raise Unusable("half a character in a text", "a lone surrogate, which no UTF-8 file can hold")
    return text


def _part_picture(part: dict[str, Any]) -> Any:
    """The picture inside an image part, or None where the row holds it."""
    found = {key: value for key, value in part.items() if key in _PICTURE_NAMES and present(value)}
    if "bytes" in found:
        return found["bytes"]
    if len(found) > 1:
        raise Unusable("more than one picture in an image part", ", ".join(found))
    return next(iter(found.values()), None)
