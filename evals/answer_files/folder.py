"""Finding a benchmark's files in the folder that its repository, or its users, keep them in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

_MAX_DEPTH = 3


def find_file(data: Path, *patterns: str) -> Path | None:
    """The file that the first fitting pattern names: the one nearest to the top, then the first by name.

    Args:
        data: a folder, searched three levels deep, or the file itself.
        patterns: of file names, such as `instances_*.json`; case does not matter.
    """
    files = list(_files(data))
    for pattern in patterns:
        for path in files:
            if fnmatch(path.name.lower(), pattern.lower()):
                return path
    return None


def _files(data: Path) -> Iterator[Path]:
    """Files level by level, each level by name."""
    if data.is_file():
        yield data
        return
    level = [data]
    for _ in range(_MAX_DEPTH):
        folders: list[Path] = []
        for folder in level:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name) if folder.is_dir() else []
            yield from (Path(entry.path) for entry in entries if entry.is_file())
            folders += [Path(entry.path) for entry in entries if entry.is_dir() and entry.name[0] != "."]
        level = folders
