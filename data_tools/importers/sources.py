"""Where a published dataset's rows come from: JSON, JSON lines, Parquet, a folder of them, or a hub id.

Everything streams: a JSON list of gigabytes is parsed item by item, Parquet by row group, a hub dataset by
`datasets` streaming with its image columns left as bytes. A row that cannot be parsed is an error in its
place; a file that breaks off is an error that stops, since what is missing cannot be counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from align.errors import AlignError

SUFFIXES = (".json", ".jsonl", ".parquet")
Layout = Literal["rows", "map"]
_BATCH = 256  # rows of Parquet in memory at once; they may hold pictures
_MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Item:
    """One published row before it is understood.

    Attributes:
        where: file (or hub id) and place.
        value: the parsed object, or why it could not be parsed.
        done: how much of the source was read when it came, in the source's unit.
    """

    where: str
    value: Any | AlignError
    done: int = 0


@dataclass(frozen=True)
class Source:
    """A dataset that can be read.

    Attributes:
        files: local files in order; empty for a hub id.
        hub_id: the hub's name of it; empty for local files.
        layout: `rows`: a list or lines of objects; `map`: one object whose values are the rows.
        total: size in `unit`, 0 when unknown.
    """

    files: tuple[Path, ...]
    hub_id: str
    layout: Layout
    split: str
    total: int
    unit: str

    def items(self) -> Iterator[Item]:
        """The rows in order.

        Raises:
            AlignError: a file that cannot be read or breaks off.
        """
        if self.hub_id:
            yield from _hub_rows(self.hub_id, self.split)
            return
        before = 0
        for path in self.files:
            for item in _file_rows(path, self.layout):
                yield Item(item.where, item.value, before + item.done)
            before += _size(path)


def open_source(name: str, layout: Layout = "rows", split: str = "train") -> Source:
    """The source that a command names: a file, a folder (its files in the order of their names), or a hub id.

    Raises:
        AlignError: nothing of that name, or a file of another kind.
    """
    path = Path(name)
    if path.is_dir():
        files = tuple(sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file()))
        if not files:
            raise AlignError(f"no {', '.join(SUFFIXES)} files in this folder", where=name)
    elif path.is_file():
        files = (path,)
        if path.suffix not in SUFFIXES:
            fix = f"files end in {', '.join(SUFFIXES)}"
            raise AlignError(f"unknown file format {path.suffix!r}", where=name, fix=fix)
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not path.parent.is_dir():
        return Source((), name, layout, split, 0, "rows")
    else:
        raise AlignError(f"no such file, folder or hub id: {name}", fix="check the path")
    if len({file.suffix == ".parquet" for file in files}) > 1:
        raise AlignError("Parquet and JSON files in one folder", where=name, fix="name one file of them")
    unit = "rows" if files[0].suffix == ".parquet" else "MB"
    return Source(files, "", layout, split, sum(map(_size, files)), unit)


def _size(path: Path) -> int:
    """Rows of a Parquet file, megabytes of any other."""
    if path.suffix == ".parquet":
        return _parquet(path).metadata.num_rows
    return path.stat().st_size // _MEGABYTE


def _file_rows(path: Path, layout: Layout) -> Iterator[Item]:
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    with path.open("rb") as file:
        if layout == "map":
            yield from _json_values(path, file)
        elif _first_byte(file) == b"[":
            yield from _json_items(path, file)
        else:
            yield from _json_lines(path, file)


def _first_byte(file: IO[bytes]) -> bytes:
    head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    file.seek(0)
    return head[:1]


def _json_lines(path: Path, file: IO[bytes]) -> Iterator[Item]:
    done = 0
    for number, line in enumerate(file, 1):
        done += len(line)
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            value: Any = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
        except (ValueError, RecursionError) as error:
            value = AlignError(f"not JSON: {error}", where=where)
        yield Item(where, value, done // _MEGABYTE)


def _json_items(path: Path, file: IO[bytes]) -> Iterator[Item]:
    import ijson

    for number, value in enumerate(
        _parsed(path, file, ijson.items(_skip_mark(file), "item", use_float=True))
    ):
        yield Item(f"{path} item {number}", value, file.tell() // _MEGABYTE)


def _json_values(path: Path, file: IO[bytes]) -> Iterator[Item]:
    """The values of one object; each gets its key as `key`."""
    import ijson

    pairs = _parsed(path, file, ijson.kvitems(_skip_mark(file), "", use_float=True))
    for key, value in pairs:
        where = f"{path} key {key!r}"
        named = {"key": key, **value} if isinstance(value, dict) else value
        yield Item(where, named, file.tell() // _MEGABYTE)


def json_section(path: Path, section: str) -> Iterator[dict[str, Any]]:
    """The objects of one list in a JSON object, such as COCO's `annotations`, without the rest in memory.

    Raises:
        AlignError: unreadable, not JSON, or no object in such a list.
    """
    import ijson

    try:
        with path.open("rb") as file:
            found = False
            for value in _parsed(
                path, file, ijson.items(_skip_mark(file), f"{section}.item", use_float=True)
            ):
                found = True
                yield value if isinstance(value, dict) else {}
    except OSError as error:
        raise AlignError(f"cannot read {path}: {error.strerror}", fix="check the path") from error
    if not found:
        raise AlignError(f"nothing in a list {section!r} of this file", where=str(path))


def _skip_mark(file: IO[bytes]) -> IO[bytes]:
    """The file behind a byte-order mark, which some publishers' tools write."""
    if file.read(3) != b"\xef\xbb\xbf":
        file.seek(0)
    return file


def _parsed(path: Path, file: IO[bytes], values: Iterator[Any]) -> Iterator[Any]:
    """What ijson yields, its errors in words."""
    import ijson

    number = 0
    while True:
        try:
            value = next(values)
        except StopIteration:
            return
        except (ijson.JSONError, ValueError, RecursionError, OSError) as error:
            raise AlignError(
                f"not whole JSON: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                where=f"{path}, after {number} items, near byte {file.tell()}",
                fix="fetch the file again, or mend it there",
            ) from error
        number += 1
        yield value


def _parquet(path: Path) -> Any:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        return pq.ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise AlignError(f"not a readable Parquet file: {error}", where=str(path)) from error


def _parquet_rows(path: Path) -> Iterator[Item]:
    from pyarrow import ArrowException

    number = 0
    try:
        for batch in _parquet(path).iter_batches(batch_size=_BATCH):
            for value in batch.to_pylist():
                yield Item(f"{path} row {number}", value, number)
                number += 1
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise AlignError(f"a Parquet file breaks off: {error}", where=f"{path} row {number}") from error


def _hub_rows(hub_id: str, split: str) -> Iterator[Item]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        rows = load_dataset(hub_id, split=split, streaming=True).decode(False)
        for number, value in enumerate(rows):
            yield Item(f"{hub_id} row {number}", value, number)
    except (DatasetsError, OSError, ValueError, ConnectionError) as error:
        raise AlignError(
            f"cannot read {hub_id} (split {split}) from the hub: {error}",
            where=hub_id,
            fix="check the id, `--split`, and that this machine reaches the hub; or name local files",
        ) from error
