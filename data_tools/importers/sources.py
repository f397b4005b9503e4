"""Where a published dataset's rows come from: JSON, JSON lines, Parquet, CSV, WebDataset tars, a folder of
them, or a hub id.

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
from align.rows.columns import plain_rows
from data_tools.importers.items import Item
from data_tools.importers.json_stream import JsonStream, open_text
from data_tools.importers.tables import csv_rows, tar_rows

SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet", ".csv", ".tsv", ".tar")
Layout = Literal["rows", "map"]
_BATCH = 256  # rows of Parquet in memory at once; they may hold pictures
_MEGABYTE = 1 << 20


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
    if len({_kind(file) for file in files}) > 1:
        kinds = ", ".join(sorted({file.suffix for file in files}))
        raise AlignError(
            f"files of several kinds in one folder: {kinds}", where=name, fix="name one file of them"
        )
    unit = "rows" if files[0].suffix == ".parquet" else "MB"
    return Source(files, "", layout, split, sum(map(_size, files)), unit)


def _kind(path: Path) -> str:
    return ".json" if path.suffix in (".json", ".jsonl", ".ndjson") else path.suffix


def _size(path: Path) -> int:
    """Rows of a Parquet file, megabytes of any other."""
    if path.suffix == ".parquet":
        return _parquet(path).metadata.num_rows
    return path.stat().st_size // _MEGABYTE


def _file_rows(path: Path, layout: Layout) -> Iterator[Item]:
    try:
        if path.suffix == ".parquet":
            yield from _parquet_rows(path)
        elif path.suffix in (".csv", ".tsv"):
            yield from csv_rows(path)
        elif path.suffix == ".tar":
            yield from tar_rows(path)
        else:
            yield from _json_rows(path, layout)
    except OSError as error:
        raise AlignError(f"cannot read {path}: {error.strerror}", fix="check the file") from error


def _json_rows(path: Path, layout: Layout) -> Iterator[Item]:
    with open_text(path) as file:
        stream = JsonStream(path, file)
        if layout == "map":
            for key, value in stream.pairs():
                named = {"key": key, **value} if isinstance(value, dict) else value
                named = {"key": key, "items": value} if isinstance(value, list) else named
                yield Item(f"{path} key {key!r}", named, stream.done // _MEGABYTE)
            if stream.peek():
                raise AlignError("more behind the object that holds the rows", where=str(path))
            return
        if stream.peek() == "[":
            for number, value in enumerate(stream.items()):
                yield Item(f"{path} item {number}", value, stream.done // _MEGABYTE)
            return
    if _is_printed_pretty(path):
        with open_text(path) as file:
            yield from _json_values(path, JsonStream(path, file))
        return
    with open_text(path, newline="\n") as file:
        yield from _json_lines(path, file)


def _is_printed_pretty(path: Path) -> bool:
    """Whether the first object stands over several lines, as `json.dump(..., indent=2)` and jq write it."""
    with open_text(path) as file:
        line = next((line for line in file if line.strip(" \t\r\n\ufeff")), "")
        try:
            json.loads(line.strip("\ufeff"))
        except (ValueError, RecursionError):
            pass
        else:
            return False
        file.seek(0)
        try:
            return isinstance(JsonStream(path, file).value(), dict)
        except AlignError:
            return False


def _json_values(path: Path, stream: JsonStream) -> Iterator[Item]:
    number = 0
    while stream.peek():
        yield Item(f"{path} item {number}", stream.value(), stream.done // _MEGABYTE)
        number += 1
        stream.count = number


def _json_lines(path: Path, file: IO[str]) -> Iterator[Item]:
    done = 0
    try:
        for number, line in enumerate(file, 1):
            done += len(line)
            line = line.strip("\ufeff")
            if line.strip():
                where = f"{path}:{number}"
                yield Item(where, _line_value(line, where), done // _MEGABYTE)
    except UnicodeDecodeError as error:
        raise AlignError(f"no text in {error.encoding}: the file breaks off", where=str(path)) from error


def _line_value(line: str, where: str) -> Any:
    try:
        line.encode("utf-8")
    except UnicodeEncodeError as error:
        byte = ord(line[error.start]) - 0xDC00
        shown = f"byte 0x{byte:02x}" if 0x80 <= byte <= 0xFF else "half a character"
        return AlignError(f"not UTF-8: {shown} at column {error.start + 1}", where=where)
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return AlignError("several JSON values in one line: each wants a line of its own", where=where)
        return AlignError(f"not JSON: {error}", where=where)
    except (ValueError, RecursionError) as error:
        return AlignError(f"not JSON: {error}", where=where)


def json_section(path: Path, section: str) -> Iterator[dict[str, Any]]:
    """The objects of one list in a JSON object, such as COCO's `annotations`, without the rest in memory.

    Raises:
        AlignError: unreadable, not JSON, or no object in such a list.
    """
    found = False
    try:
        with open_text(path) as file:
            for value in JsonStream(path, file).section(section):
                found = True
                yield value if isinstance(value, dict) else {}
    except OSError as error:
        raise AlignError(f"cannot read {path}: {error.strerror}", fix="check the path") from error
    if not found:
        raise AlignError(f"nothing in a list {section!r} of this file", where=str(path))


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
            for value in plain_rows(batch):
                yield Item(f"{path} row {number}", value, number)
                number += 1
    except (ArrowException, OSError) as error:
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
