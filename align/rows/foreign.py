"""Files that hold other tools' rows: told from ours, and read by whoever has announced that they can.

A package announces a reader as an entry point in the group `align.row_readers`: a function as `RowReader`
describes it. This package needs none of them by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from align.errors import AlignError
from align.rows.kinds import row_class
from align.rows.schema import PreferenceRow, SFTRow, raw_rows

GROUP = "align.row_readers"
MARKER = re.compile(r"<image>|<video>|<audio>|<ImageHere>|<img>[^<>]+</img>")
"""What other tools write into a question where a picture, film or sound stands."""
_LOOKED_AT = 20
_TURNS = ("messages", "prompt", "chosen", "rejected")


@dataclass(frozen=True)
class Converted:
    """Rows of ours that a reader has made.

    Attributes:
        path: their file.
        image_root: folder that their pictures' paths are relative to; None: no row has any.
        num_dropped: rows of the file that could not be used, each with its reason in `quarantine`.
    """

    path: Path
    image_root: Path | None
    num_dropped: int
    quarantine: Path


class RowReader(Protocol):
    """Makes rows of ours of a file, and says what it took it for and what it left out."""

    def __call__(
        self,
        path: Path,
        cls: type[SFTRow] | type[PreferenceRow],
        image_root: Path | None,
        into: Path,
        quarantine: Path,
        max_pixels: int,
    ) -> Converted:
        """Convert a file.

        Args:
            cls: the class of rows that is wanted.
            image_root: folder of the pictures; None: beside the file, or in `into` where rows hold them.
            into: an own folder for what is written.
            quarantine: file for the rows that cannot be used.
            max_pixels: larger pictures are refused.

        Raises:
            AlignError: a file that it does not know, or one without a usable row of this class.
        """
        ...


def row_reader() -> RowReader | None:
    """The reader that an installed package announces."""
    found = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    return found[0].load() if found else None


def is_ours(path: Path) -> bool:
    """Whether a file's first row is one of ours, be it a bad one; true for a file that is not there."""
    if not path.exists():
        return True
    if path.is_dir() or path.suffix not in (".jsonl", ".parquet"):
        return False
    try:
        first = [raw for _, raw in islice(raw_rows(path), _LOOKED_AT) if isinstance(raw, dict)][:1]
    except AlignError:
        return False
    return not first or _is_row(first[0])


def _is_row(raw: dict[str, Any]) -> bool:
    cls = row_class(raw)
    if cls is None or not set(raw) <= set(cls.model_fields):
        return False
    turns = [turn for name in _TURNS if isinstance(raw.get(name), list) for turn in raw[name]]
    if any(isinstance(turn, dict) and not set(turn) <= {"role", "content", "loss"} for turn in turns):
        return False
    return not any(MARKER.search(text) for text in _questions(turns)) and not _has_own_pictures(turns)


def _questions(turns: Iterable[Any]) -> list[str]:
    asked = [turn.get("content") for turn in turns if isinstance(turn, dict) and turn.get("role") == "user"]
    return [text for text in asked if isinstance(text, str)]


def _has_own_pictures(turns: Iterable[Any]) -> bool:
    contents = [turn.get("content") for turn in turns if isinstance(turn, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return any(isinstance(part, dict) and not set(_filled(part)) <= {"type", "text"} for part in parts)


def _filled(part: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if value is not None}
