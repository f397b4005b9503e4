"""Rows of a JSON-lines file by their ids, whatever order they stand in; memory holds ids alone."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Generic, TypeVar

from align.errors import AlignError
from align.rows.schema import BaseRow, check_row, read_rows

Row = TypeVar("Row", bound=BaseRow)


class RowsInOrder(Generic[Row]):
    """The rows of a file by the values of some of their keys; may be gone through several times.

    Where JSON lines stand in rising order they are streamed, else each is sought by its place in the file;
    other formats are held.

    Args:
        keys: what sorts the rows; the last one is unique.

    Raises:
        AlignError: no such file, a bad row, or two rows of one id.
    """

    def __init__(self, cls: type[Row], path: Path, keys: tuple[str, ...]) -> None:
        self._cls, self._path = cls, path
        self._held: list[Row] | None = None
        found = _indexed(path, keys)
        if found is None:
            self._held = sorted(read_rows(cls, path), key=lambda row: _name(row, keys))
            found = [_name(row, keys) for row in self._held], array("q", range(len(self._held)))
        names, places = found
        self.count = len(names)
        order = sorted(range(len(names)), key=names.__getitem__)
        if any(names[one][-1] == names[two][-1] for one, two in pairwise(order)):
            raise AlignError(f"duplicate {keys[-1]}s", where=str(path))
        self._rising = order == list(range(len(order)))
        self._places = array("q", (places[number] for number in order))

    def __iter__(self) -> Iterator[Row]:
        if self._held is not None:
            yield from self._held
            return
        if self._rising:
            yield from read_rows(self._cls, self._path)
            return
        with self._path.open("rb") as file:
            for place in self._places:
                file.seek(place)
                yield self._row(file.readline(), place)

    def _row(self, line: bytes, place: int) -> Row:
        return check_row(self._cls, json.loads(line), f"{self._path} byte {place}")


def _name(row: BaseRow, keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(getattr(row, key)) for key in keys)


def _indexed(path: Path, keys: tuple[str, ...]) -> tuple[list[tuple[str, ...]], array[int]] | None:
    """The values of the keys and the byte of each row; None for a file that is not lines of JSON in UTF-8,
    which is read as a whole (and says what is wrong with it)."""
    if not path.is_file():
        raise AlignError(f"no such file: {path}", fix="check the path, or run the stage that writes it")
    if path.suffix != ".jsonl":
        return None
    names: list[tuple[str, ...]] = []
    places, place = array("q"), 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                try:
                    row = json.loads(line)
                    names.append(tuple(str(row[key]) for key in keys))
                except (ValueError, LookupError, TypeError, RecursionError):
                    return None
                places.append(place)
            place += len(line)
    return names, places
