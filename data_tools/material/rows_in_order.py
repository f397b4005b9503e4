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

    Where they stand in rising order they are streamed, else each is sought by its place in the file.

    Args:
        keys: what sorts the rows; the last one is unique.

    Raises:
        AlignError: no such file, a bad row, or two rows of one id.
    """

    def __init__(self, cls: type[Row], path: Path, keys: tuple[str, ...]) -> None:
        self._cls, self._path = cls, path
        names, places = _indexed(cls, path, keys)
        self.count = len(names)
        order = sorted(range(len(names)), key=names.__getitem__)
        if any(names[one][-1] == names[two][-1] for one, two in pairwise(order)):
            raise AlignError(f"duplicate {keys[-1]}s", where=str(path))
        self._rising = order == list(range(len(order)))
        self._places = array("q", (places[number] for number in order))

    def __iter__(self) -> Iterator[Row]:
        if self._rising:
            yield from read_rows(self._cls, self._path)
            return
        with self._path.open("rb") as file:
            for place in self._places:
                file.seek(place)
                yield self._row(file.readline(), place)

    def _row(self, line: bytes, place: int) -> Row:
        return check_row(self._cls, json.loads(line), f"{self._path} byte {place}")


def _indexed(cls: type[Row], path: Path, keys: tuple[str, ...]) -> tuple[list[tuple[str, ...]], array[int]]:
    """The values of the keys and the byte of each row; what is no row is read as rows are, which says why."""
    if not path.is_file():
        raise AlignError(f"no such file: {path}", fix="check the path, or run the stage that writes it")
    names: list[tuple[str, ...]] = []
    places, place = array("q"), 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                try:
                    row = json.loads(line)
                    names.append(tuple(str(row[key]) for key in keys))
                except (ValueError, LookupError, TypeError, RecursionError) as error:
                    for _ in read_rows(cls, path):
                        pass
                    raise AlignError(f"not a row: {error}", where=f"{path} byte {place}") from error
                places.append(place)
            place += len(line)
    return names, places
