"""A file of rows in parts that can be read apart, on other processes or machines, and in order again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from align.errors import AlignError

PART_BYTES = 1 << 20
"""Of JSON lines in one part, about."""


@dataclass(frozen=True)
class Part:
    """Some neighbouring rows of a file.

    Attributes:
        start, stop: bytes of JSON lines, cut behind a line's end; row groups of Parquet.
        first: number of the first line (from 1) or row (from 0), for places in messages.
    """

    path: Path
    start: int
    stop: int
    first: int


def split_rows(path: Path, part_bytes: int = PART_BYTES) -> Iterator[Part]:
    """The parts of a file in order; nothing is parsed, and only one part is in memory.

    Raises:
        AlignError: missing or unreadable file, or an unknown format.
    """
    if not path.is_file():
        raise AlignError(f"no such file: {path}", fix="check the path, or run the stage that writes it")
    if path.suffix == ".jsonl":
        yield from _line_parts(path, part_bytes)
    elif path.suffix == ".parquet":
        yield from _group_parts(path)
    else:
        raise AlignError(f"unknown row format {path.suffix!r}", where=str(path), fix="use .jsonl or .parquet")


def _line_parts(path: Path, part_bytes: int) -> Iterator[Part]:
    start, number = 0, 1
    with path.open("rb") as file:
        while data := file.read(part_bytes) + file.readline():
            yield Part(path, start, start + len(data), number)
            start += len(data)
            # as text is read: \n, \r\n and a lone \r each end a line
            number += data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def _group_parts(path: Path) -> Iterator[Part]:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        metadata = pq.ParquetFile(path).metadata
    except (ArrowException, OSError) as error:
        raise AlignError(f"not a readable Parquet file: {error}", where=str(path)) from error
    number = 0
    for group in range(metadata.num_row_groups):
        yield Part(path, group, group + 1, number)
        number += metadata.row_group(group).num_rows


def count_rows(path: Path) -> int:
    """How many rows a file has, for a bar: lines that are not parsed, or what Parquet says of itself; 0 where
    that cannot be told."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq
        from pyarrow import ArrowException

        try:
            return pq.read_metadata(path).num_rows
        except (ArrowException, OSError):
            return 0
    try:
        with path.open("rb") as file:
            return sum(data.count(b"\n") for data in iter(lambda: file.read(PART_BYTES), b""))
    except OSError:
        return 0
