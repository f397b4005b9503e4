"""Rows of CSV files and of WebDataset tars."""

from __future__ import annotations

import ast
import csv
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from align.errors import AlignError
from data_tools.importers.items import Item
from data_tools.importers.json_stream import open_text

_PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "img")
_MEGABYTE = 1 << 20


def csv_rows(path: Path) -> Iterator[Item]:
    """Rows of a CSV file with a header, or of a `.tsv`; cells that hold JSON lists or objects are parsed.

    Raises:
        AlignError: no header, or the file breaks off.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    done = 0
    with open_text(path, newline="") as file:
        rows = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        try:
            header = [name.strip("\ufeff") for name in next(rows, [])]
            if not any(header):
                raise AlignError("a table without a header", where=str(path))
            for cells in rows:
                done += sum(map(len, cells))
                if cells:
                    where = f"{path}:{rows.line_num}"
                    yield Item(where, _record(header, cells, where), done // _MEGABYTE)
        except (csv.Error, UnicodeDecodeError) as error:
            raise AlignError(f"not a readable table: {error}", where=f"{path}:{rows.line_num}") from error


def _record(header: list[str], cells: list[str], where: str) -> Any:
    if len(cells) != len(header):
        what = f"not as many cells as columns: {len(cells)} for {len(header)}"
        return AlignError(what, where=where)
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        return AlignError(f"a column twice: {', '.join(twice)[:100]}", where=where)
    return dict(zip(header, map(_cell, cells), strict=True))


def _cell(text: str) -> Any:
    if text.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return _written_by_python(text)
    return text or None


def _written_by_python(text: str) -> Any:
    """A list or object as pandas writes it into a cell: `['a.png', None]`."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def tar_rows(path: Path) -> Iterator[Item]:
    """Samples of a WebDataset shard: neighbouring files of one name, told apart by what follows its first
    dot.

    Pictures become `image` or `images`, a `.json` file's keys the row's, other files text under their suffix.

    Raises:
        AlignError: not a tar, or it breaks off.
    """
    name, files = "", dict[str, bytes]()
    number = 0
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if not member.isfile():
                    continue
                folder, slash, base = member.name.rpartition("/")
                stem, _, suffix = base.partition(".")
                key = folder + slash + stem
                if files and key != name:
                    yield _sample(path, number, name, files, tar)
                    number, files = number + 1, {}
                data = tar.extractfile(member)
                name, files[suffix.lower()] = key, data.read() if data else b""
            if files:
                yield _sample(path, number, name, files, tar)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise AlignError(f"a tar breaks off: {error}", where=f"{path}, after {number} samples") from error


def _sample(path: Path, number: int, name: str, files: dict[str, bytes], tar: tarfile.TarFile) -> Item:
    where = f"{path} sample {number} {name!r}"
    fields: dict[str, Any] = {}
    pictures = [data for suffix, data in sorted(files.items()) if suffix.rpartition(".")[2] in _PICTURES]
    for suffix, data in files.items():
        kind = suffix.rpartition(".")[2]
        if kind in _PICTURES:
            continue
        try:
            value: Any = json.loads(data) if kind == "json" else data.decode("utf-8")
        except UnicodeDecodeError:
            value = data
        except (ValueError, RecursionError) as error:
            return Item(where, AlignError(f"not JSON: {error}", where=where), tar.offset // _MEGABYTE)
        fields |= value if kind == "json" and isinstance(value, dict) else {suffix: value}
    if pictures:
        named = {f"{key}_name": fields.pop(key) for key in ("image", "images") if key in fields}
        fields |= named
        fields |= {"image": pictures[0]} if len(pictures) == 1 else {"images": pictures}
    fields.setdefault("id", name)
    return Item(where, fields, tar.offset // _MEGABYTE)
