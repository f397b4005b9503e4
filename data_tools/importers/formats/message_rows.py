"""Rows of messages, as TRL reads them: `rlaif-v_formatted`, and anybody's JSON lines, Parquet or hub dataset.

https://huggingface.co/datasets/HuggingFaceH4/rlaif-v_formatted, TRL's "Dataset formats" page, ms-swift's
"Custom dataset" page and OpenAI's chat form. Contents are texts or lists of typed parts; Arrow gives a part
the keys of all others, with None in them.
"""

from __future__ import annotations

from typing import Any

from data_tools.importers.dialogue import convert, says
from data_tools.importers.flat_rows import QUESTIONS
from data_tools.importers.flat_rows import convert as convert_flat
from data_tools.importers.published import Format, Published, Row

_SWIFT = ("rejected_response", "rejected_messages", "rejected_images")


def _any(published: Published) -> list[Row]:
    """Rows of messages, or of a plain question with its answers."""
    row = dict(published.fields)
    flat = says(row, *QUESTIONS) and not says(row, "prompt", "messages", "conversations", "texts")
    return convert_flat(published) if flat else convert(published)


def _contents(row: dict[str, Any]) -> list[Any]:
    turns = row.get("messages")
    return (
        [turn.get("content") for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    )


def _parts(row: dict[str, Any]) -> list[dict[str, Any]]:
    found = [part for content in _contents(row) if isinstance(content, list) for part in content]
    return [part for part in found if isinstance(part, dict)]


def _is_swift(row: dict[str, Any]) -> bool:
    turns = row.get("messages")
    weighted = isinstance(turns, list) and any(isinstance(turn, dict) and "loss" in turn for turn in turns)
    marked = any(isinstance(text, str) and "<image>" in text for text in _contents(row))
    return says(row, *_SWIFT) or weighted or marked


def _is_openai(row: dict[str, Any]) -> bool:
    return any(part.get("type") in ("image_url", "input_image") for part in _parts(row))


FORMATS = (
    Format(
        "rlaif_v_formatted",
        "HuggingFaceH4/rlaif-v_formatted: pairs",
        '{"images": [{"bytes"}], "prompt"/"chosen"/"rejected": [{"role", "content": [{"type", "text"}]}]}',
        convert,
        embeds=True,
    ),
    Format(
        "rows",
        "any JSON lines, Parquet or hub dataset in TRL's or our own form",
        '{"images": [path], "messages": [{"role", "content"}]} or {"images", "prompt", "chosen", "rejected"}',
        _any,
        needs=("messages",),
    ),
    Format(
        "ms_swift",
        "ms-swift's messages: instruction rows, or pairs where a rejected answer stands beside",
        '{"messages": [{"role", "content": "<image>...", "loss"}], "images": [path], "rejected_response", '
        '"rejected_messages", "rejected_images"}',
        convert,
        needs=("messages",),
        tells=_is_swift,
    ),
    Format(
        "openai",
        "OpenAI's chat form, pictures as addresses in their parts: instruction rows",
        '{"messages": [{"role", "content": [{"type": "image_url", "image_url": {"url": '
        '"data:image/png;base64,..."}}]}]}',
        convert,
        needs=("messages",),
        tells=_is_openai,
    ),
    Format(
        "unsloth",
        "unsloth's messages of typed parts, pictures in them or in images: instruction rows",
        '{"messages": [{"role", "content": [{"type": "text", "text"}, {"type": "image", "image"}]}]}',
        convert,
        needs=("messages",),
        tells=lambda row: bool(_parts(row)) and not _is_openai(row),
    ),
    Format(
        "trl_pairs",
        "TRL's preference rows, the prompt beside the answers or in both: pairs",
        '{"images": [path], "prompt", "chosen", "rejected"} or {"images", "chosen", "rejected"}',
        convert,
        needs=("chosen", "rejected"),
        tells=lambda row: says(row, "prompt") or isinstance(row.get("chosen"), list),
    ),
    Format(
        "trl_completions",
        "TRL's prompts with their completion: instruction rows",
        '{"images": [path], "prompt": text or [{"role", "content"}], "completion"}',
        convert,
        needs=("prompt", "completion"),
    ),
)
