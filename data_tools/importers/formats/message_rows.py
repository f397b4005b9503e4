"""Rows of messages, as TRL reads them: `rlaif-v_formatted`, and anybody's JSON lines, Parquet or hub dataset.

https://huggingface.co/datasets/HuggingFaceH4/rlaif-v_formatted and TRL's "Dataset formats" page. Contents are
texts or lists of typed parts; Arrow gives a part the keys of all others, with None in them.
"""

from __future__ import annotations

from typing import Any

from align.rows.schema import Message
from data_tools.importers.published import Format, Published, Row
from data_tools.importers.turns import check_order, question_turn, read_turns, take_placeholders, text_of
from data_tools.importers.unusable import Unusable

_OWN = {
    "id",
    "image",
    "images",
    "rejected_images",
    "messages",
    "prompt",
    "chosen",
    "rejected",
    "spans",
    "meta",
}


def _convert(published: Published) -> list[Row]:
    images = published.pictures.of(published.get("images") or published.get("image"))
    meta = published.origin(*sorted(set(published.fields) - _OWN))
    if isinstance(published.get("meta"), dict):
        meta |= published.origin("meta")["meta"]
    if published.get("messages") is not None:
        turns = check_order(_messages(published.get("messages"), len(images)))
        return [published.instruction(images, turns, meta)]
    if not all(published.get(name) for name in ("prompt", "chosen", "rejected")):
        raise Unusable("neither messages nor prompt, chosen and rejected", ", ".join(published.fields)[:200])
    prompt = _messages(published.get("prompt"), len(images))
    chosen, rejected = (_answer(published.get(name), prompt) for name in ("chosen", "rejected"))
    worse = published.pictures.of(published.get("rejected_images"))
    spans = published.get("spans")
    return [published.pair(images, prompt, chosen, rejected, meta, rejected_images=worse, spans=spans)]


def _messages(value: Any, num_images: int) -> list[Message]:
    """Turns with their images' places checked: typed parts, or `<image>` in plain text."""
    if isinstance(value, str):
        return question_turn(text_of(value, "prompt"), num_images)
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise Unusable("no messages", type(value).__name__)
    marked = [_image_parts(turn, first=_is_first_user(value, k)) for k, turn in enumerate(value)]
    turns = read_turns([{**turn, "content": _text(turn)} for turn in value])
    if any(marked):
        if sum(marked) != num_images:
            raise Unusable("not as many image parts as images", f"{sum(marked)} for {num_images}")
        return turns
    return take_placeholders(turns, num_images)


def _answer(value: Any, prompt: list[Message]) -> str:
    """The last turn's text; TRL's implicit form repeats the prompt before it."""
    if isinstance(value, str):
        return text_of(value, "answer")
    turns = _messages(value, 0)
    if turns[-1].role != "assistant" or len(turns) not in (1, len(prompt) + 1):
        raise Unusable("an answer is not one assistant turn", " ".join(turn.role for turn in turns))
    return turns[-1].text


def _is_first_user(turns: list[dict[str, Any]], place: int) -> bool:
    return turns[place].get("role") == "user" and all(turn.get("role") != "user" for turn in turns[:place])


def _image_parts(turn: dict[str, Any], first: bool) -> int:
    """Image parts of a turn, which may stand before the first user turn's text and nowhere else."""
    content = turn.get("content")
    if not isinstance(content, list):
        return 0
    kinds = [part.get("type") if isinstance(part, dict) else None for part in content]
    count = kinds.count("image")
    leading = next((k for k, kind in enumerate(kinds) if kind != "image"), len(kinds))
    if count and (not first or leading != count):
        raise Unusable("an image stands inside the text or in a later turn", str(kinds)[:200])
    return count


def _text(turn: dict[str, Any]) -> Any:
    content = turn.get("content", turn.get("value"))
    if not isinstance(content, list):
        return content
    parts = [part for part in content if isinstance(part, dict) and part.get("type") != "image"]
    if any(part.get("type") != "text" or not isinstance(part.get("text"), str) for part in parts):
        raise Unusable("a message part is neither text nor image", str(parts)[:200])
    return "\n".join(part["text"] for part in parts)


FORMATS = (
    Format(
        "rlaif_v_formatted",
        "HuggingFaceH4/rlaif-v_formatted: pairs",
        '{"images": [{"bytes"}], "prompt"/"chosen"/"rejected": [{"role", "content": [{"type", "text"}]}]}',
        _convert,
        embeds=True,
    ),
    Format(
        "rows",
        "any JSON lines, Parquet or hub dataset in TRL's or our own form",
        '{"images": [path], "messages": [{"role", "content"}]} or {"images", "prompt", "chosen", "rejected"}',
        _convert,
    ),
)
