"""Tables of text as benchmarks publish them: .tsv, .csv, and the first sheet of an .xlsx, read as plain
strings.

An .xlsx file is a zip of XML (ECMA-376, part 1, 18.3). Only what a table of texts needs is read: shared and
inline strings, numbers and booleans, no formulas and no dates.
"""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from align.errors import AlignError

SUFFIXES = (".tsv", ".csv", ".xlsx")
_MAX_CELL = 1 << 28
_MAX_MEMBER_BYTES = 1 << 29
_SPACE = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_COLUMN = re.compile(r"[A-Z]+")


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table as column name -> text; empty cells are empty texts, empty rows are left out.

    Raises:
        AlignError: unreadable, no table, or a column name that occurs twice.
    """
    try:
        rows = _xlsx(path) if path.suffix.lower() == ".xlsx" else _separated(path)
        names = [name.strip() for name in next(rows, [])]
        if not any(names) or len(set(filter(None, names))) != len([name for name in names if name]):
            raise AlignError("no row of different column names at the top", where=str(path))
        found = [dict(zip(names, row + [""] * len(names), strict=False)) for row in rows if any(row)]
    except OSError as error:
        raise AlignError(f"cannot read {path}: {error.strerror}", fix="check the path") from error
    except (csv.Error, zipfile.BadZipFile, ElementTree.ParseError, LookupError, ValueError) as error:
        raise AlignError(f"not a readable table: {error}", where=str(path)) from error
    return [{name: text for name, text in row.items() if name} for row in found]


def _separated(path: Path) -> Iterator[list[str]]:
    csv.field_size_limit(_MAX_CELL)  # pictures stand in such tables as base64
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        yield from csv.reader(lines, delimiter=separator)


def _xlsx(path: Path) -> Iterator[list[str]]:
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        shared: list[str] = []
        if "xl/sharedStrings.xml" in names:
            shared = [_text(item) for item in _xml(archive, "xl/sharedStrings.xml").iter(f"{_SPACE}si")]
        for row in _xml(archive, _first_sheet(archive)).iter(f"{_SPACE}row"):
            cells: list[str] = []
            for cell in row.iter(f"{_SPACE}c"):
                column = _column(cell.get("r", ""), default=len(cells))
                cells += [""] * (column + 1 - len(cells))
                cells[column] = _cell(cell, shared)
            yield cells


def _first_sheet(archive: zipfile.ZipFile) -> str:
    """The part that holds the sheet which the workbook lists first."""
    sheet = next(_xml(archive, "xl/workbook.xml").iter(f"{_SPACE}sheet"))
    for relation in _xml(archive, "xl/_rels/workbook.xml.rels"):
        if relation.get("Id") == sheet.get(_RELATION):
            target = relation.get("Target", "")
            return target.removeprefix("/") if target.startswith("/") else f"xl/{target}"
    raise LookupError("the workbook's first sheet is missing")


def _xml(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    if archive.getinfo(name).file_size > _MAX_MEMBER_BYTES:
        raise ValueError(f"{name} is larger than {_MAX_MEMBER_BYTES} bytes")
    data = archive.read(name)
    if b"<!DOCTYPE" in data[:1000] or b"<!ENTITY" in data[:1000]:
        raise ValueError(f"{name} declares entities")  # no spreadsheet program does; a bomb would
    return ElementTree.fromstring(data)


def _cell(cell: ElementTree.Element, shared: list[str]) -> str:
    kind, value = cell.get("t", "n"), cell.find(f"{_SPACE}v")
    if kind == "inlineStr":
        inline = cell.find(f"{_SPACE}is")
        return _text(inline) if inline is not None else ""
    text = (value.text or "") if value is not None else ""
    if kind == "s" and text:
        return shared[int(text)]
    if kind == "n":
        return text.removesuffix(".0")
    return _unescape(text)


def _text(item: ElementTree.Element) -> str:
    """The runs of a string, joined; phonetic hints are not part of it."""
    runs = [item.find(f"{_SPACE}t"), *(run.find(f"{_SPACE}t") for run in item.findall(f"{_SPACE}r"))]
    return _unescape("".join(run.text or "" for run in runs if run is not None))


def _unescape(text: str) -> str:
    """`_x000D_` is how the format writes a character that XML cannot hold."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)


def _column(reference: str, default: int) -> int:
    """`B12` is column 1; a cell without a reference stands after the one before."""
    letters = _COLUMN.match(reference)
    if letters is None:
        return default
    number = 0
    for letter in letters.group():
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1
