"""Content digests: what a stage read and what it wrote, as sha256 over bytes, never over paths or times."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
LARGE_FOLDER_BYTES = 4 << 30


def digest_json(value: Any) -> str:
    """sha256 of a JSON-serialisable value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_path(path: Path) -> str:
    """Digest of a file or folder.

    A finished stage folder, or a folder inside one, is known by its manifest; any other folder by the
    relative names and bytes of all its files, or, past `LARGE_FOLDER_BYTES` (an image collection), by
    their names, sizes and modification times, since reading it would take longer than many a stage.
    """
    if path.is_file():
        return digest_file(path)
    recorded = _recorded_digest(path)
    if recorded:
        return recorded
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    stats = {str(file.relative_to(path)): file.stat() for file in files}
    if sum(stat.st_size for stat in stats.values()) > LARGE_FOLDER_BYTES:
        return digest_json({name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()})
    return digest_json({name: digest_file(path / name) for name in stats})


def _recorded_digest(path: Path) -> str | None:
    """From the manifest in this folder or, for the outputs below `path`, in a folder above it."""
    for folder in (path, *path.parents[:3]):
        try:
            record = json.loads((folder / MANIFEST).read_text())
        except (OSError, ValueError):
            continue
        if folder == path:
            return record.get("output_digest")
        inside = path.relative_to(folder).parts
        outputs = record.get("outputs", {})
        below = {
            name: item["sha256"]
            for name, item in outputs.items()
            if Path(name).parts[: len(inside)] == inside
        }
        return digest_json(below) if below else None
    return None
