"""What a recipe's `model` names, and the identity of its weights: content, never a path or a time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from align.digest import MANIFEST, digest_file, digest_json
from align.errors import AlignError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def as_checkpoint(model: str) -> str | Path:
    """A recipe's `model` as a path, or unchanged where it can only be a hub id (`owner/name`)."""
    is_id = _HUB_ID.fullmatch(model) and not model.startswith(".") and not Path(model).exists()
    return model if is_id and not Path(model).parent.is_dir() else Path(model)


def model_digest(checkpoint: str | Path) -> str:
    """Digest of a checkpoint's files by relative name and bytes, wherever it lies; of a hub model, its id.

    Files that a finished stage's manifest lists are not read again.

    Raises:
        AlignError: a path that does not exist or is not a checkpoint.
    """
    path = Path(checkpoint)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise AlignError(
                f"not a checkpoint: {path} has no config.json",
                fix="name a merged checkpoint folder; an adapter must be merged first (`align merge`)",
            )
        known = _listed_outputs(path)
        files = sorted(file for file in path.rglob("*") if file.is_file())
        names = {file: file.relative_to(path).as_posix() for file in files}
        return digest_json({name: known.get(name) or digest_file(file) for file, name in names.items()})
    if isinstance(checkpoint, Path) or path.exists() or not _HUB_ID.fullmatch(str(checkpoint)):
        raise AlignError(f"no such checkpoint: {checkpoint}", fix="run the merge stage that writes it")
    return f"id:{checkpoint}"


def checkpoint_config(checkpoint: str | Path) -> dict[str, Any] | None:
    """A checkpoint folder's `config.json`; None for a hub id."""
    path = Path(checkpoint) / "config.json"
    return json.loads(path.read_text()) if path.is_file() else None


def longest_context(checkpoint: str | Path) -> int | None:
    """The context length that the model's config states, in tokens; None for a hub id."""
    config = checkpoint_config(checkpoint) or {}
    text = config.get("text_config") or config
    found = text.get("max_position_embeddings") or text.get("n_positions")
    return int(found) if found else None


def _listed_outputs(path: Path) -> dict[str, str]:
    """Name below `path` -> sha256, from the manifest of the finished stage folder that holds it."""
    try:
        outputs = json.loads((path.parent / MANIFEST).read_text()).get("outputs", {})
    except (OSError, ValueError):
        return {}
    start = f"{path.name}/"
    return {
        name.removeprefix(start): item["sha256"] for name, item in outputs.items() if name.startswith(start)
    }
