"""The strings that a checkpoint's tokenizer turns into visual input, read from its files alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_VISUAL_ID = re.compile(r"(?:image|video|vision|boi|eoi)\w*token_(?:id|index)")


def image_words(checkpoint: str | Path) -> tuple[str, ...]:
    """Such as `<image>`: the added tokens that config.json names by id; none for a text-only model.

    Args:
        checkpoint: a folder, or a hub id whose files have been fetched before; else nothing is known.
    """
    config = _read(checkpoint, "config.json")
    ids = {value for key, value in config.items() if _VISUAL_ID.fullmatch(key) and isinstance(value, int)}
    added = {
        item["id"]: item["content"] for item in _read(checkpoint, "tokenizer.json").get("added_tokens", ())
    }
    decoder = _read(checkpoint, "tokenizer_config.json").get("added_tokens_decoder", {})
    added |= {int(number): item["content"] for number, item in decoder.items()}
    return tuple(sorted(added[number] for number in ids & added.keys()))


def _read(checkpoint: str | Path, name: str) -> dict[str, Any]:
    path = Path(checkpoint) / name
    if not Path(checkpoint).is_dir():
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(str(checkpoint), name)
        path = Path(found) if isinstance(found, str) else path
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
