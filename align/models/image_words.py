"""The strings that a checkpoint's tokenizer turns into visual input, read from its files alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from align.config.model_ref import ModelRef

_VISUAL_ID = re.compile(r"(?:image|video|vision|boi|eoi)\w*token_(?:id|index)")


def image_words(model: ModelRef) -> tuple[str, ...]:
    """Such as `<image>`: the added tokens that config.json names by id; none for a text-only model.

    Args:
        model: a folder, or a hub id whose files have been fetched before; else nothing is known.
    """
    config = _read(model, "config.json")
    ids = {value for key, value in config.items() if _VISUAL_ID.fullmatch(key) and isinstance(value, int)}
    added = {item["id"]: item["content"] for item in _read(model, "tokenizer.json").get("added_tokens", ())}
    decoder = _read(model, "tokenizer_config.json").get("added_tokens_decoder", {})
    added |= {int(number): item["content"] for number, item in decoder.items()}
    return tuple(sorted(added[number] for number in ids & added.keys()))


def _read(model: ModelRef, name: str) -> dict[str, Any]:
    path = Path(model.path) / name
    if not model.is_local:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(model.path, name, revision=model.revision)
        path = Path(found) if isinstance(found, str) else path
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
