"""Content digests: what a stage read and what it wrote, as sha256 over bytes, never over paths or times."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


def digest_json(value: Any) -> str:
    """sha256 of a JSON-serialisable value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_path(path: Path) -> str:
    """Digest of a file, of a finished stage folder (its manifest's output digest) or of any other
    folder (relative names and bytes of all its files)."""
    if path.is_file():
        return digest_file(path)
    manifest = path / MANIFEST
    if manifest.is_file():
        recorded = json.loads(manifest.read_text()).get("output_digest")
        if recorded:
            return str(recorded)
    return digest_json(
        {str(file.relative_to(path)): digest_file(file) for file in sorted(path.rglob("*")) if file.is_file()}
    )
