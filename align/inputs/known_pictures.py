"""Which pictures have been decoded before: a picture is verified once for what it holds, not once a start.

A small database beside the checked rows. A picture is known by its file's path, size and time of change; its
decoding either succeeded, and gave a height and a width, or failed for a reason. Checking processes read the
database, the main one alone writes it.
"""

from __future__ import annotations

import os
import sqlite3
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from align.errors import AlignError
from align.inputs.images import image_file, image_size, open_image

_REMEMBERED = 100_000
_TABLE = (
    "CREATE TABLE IF NOT EXISTS pictures (path TEXT, bytes INTEGER, changed INTEGER, max_pixels INTEGER,"
    " fault TEXT, height INTEGER, width INTEGER, PRIMARY KEY (path, max_pixels)) WITHOUT ROWID"
)


@dataclass(frozen=True)
class Picture:
    """A verified file: why it cannot be used (empty where it can), and its size in pixels."""

    fault: str = ""
    height: int = 0
    width: int = 0


Found = tuple[str, int, int, int, str, int, int]
"""A line of the database: path, bytes, time of change in ns, `max_pixels`, fault, height, width."""


@dataclass
class KnownPictures:
    """Verifies pictures below one root, and remembers.

    Attributes:
        database: None: nothing is known yet, or there is no place to keep it.
        new: what has been decoded here and is not in the database.
    """

    root: Path | None
    max_pixels: int
    database: Path | None
    new: list[Found] = field(default_factory=list)
    _known: OrderedDict[str, Picture] = field(default_factory=OrderedDict)
    _connection: sqlite3.Connection | None = None

    def check(self, name: str) -> Picture:
        """What is to be said of the picture that rows call `name`."""
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = self._find(name)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found

    def taken(self) -> list[Found]:
        """What is new since the last call."""
        new, self.new = self.new, []
        return new

    def _find(self, name: str) -> Picture:
        try:
            path = image_file(self.root, name)
            stat = os.stat(path)
        except (AlignError, OSError) as error:
            return Picture(_words(error, name))
        kept = self._kept(str(path), stat.st_size, stat.st_mtime_ns)
        if kept is not None:
            return kept
        try:
            size = image_size(path, self.max_pixels)
            open_image(path, self.max_pixels)
            found = Picture("", *size)
        except AlignError as error:
            found = Picture(_words(error, name))
        self.new.append(
            (
                str(path),
                stat.st_size,
                stat.st_mtime_ns,
                self.max_pixels,
                found.fault,
                found.height,
                found.width,
            )
        )
        return found

    def _kept(self, path: str, size: int, changed: int) -> Picture | None:
        if self.database is None or not self.database.is_file():
            return None
        asked = (path, self.max_pixels)
        query = "SELECT bytes, changed, fault, height, width FROM pictures WHERE path = ? AND max_pixels = ?"
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(f"{self.database.absolute().as_uri()}?mode=ro", uri=True)
            row = self._connection.execute(query, asked).fetchone()
        except sqlite3.DatabaseError:  # damaged: nothing is known, and `remember` begins anew
            return None
        return Picture(*row[2:]) if row is not None and row[:2] == (size, changed) else None


def remember(database: Path, found: Iterable[Found]) -> None:
    """Add lines to the database, newer ones in the place of older ones; a damaged one begins anew."""
    database.parent.mkdir(parents=True, exist_ok=True)
    lines = list(found)
    try:
        _write(database, lines)
    except sqlite3.OperationalError:  # locked or full, not damaged
        raise
    except sqlite3.DatabaseError:
        database.unlink()
        _write(database, lines)


def _write(database: Path, lines: list[Found]) -> None:
    connection = sqlite3.connect(database, timeout=60)
    try:
        with connection:
            connection.execute(_TABLE)
            connection.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?)", lines)
    finally:
        connection.close()


def _words(error: Exception, name: str) -> str:
    what = error.what if isinstance(error, AlignError) else str(error)
    return what if name in what else f"{what}: {name}"
