"""All rows of a file in a temporary database, so that any page of them, in any order, comes at once.

A row is kept as its view (compressed JSON) with a column for each of its facts and lengths. Memory does not
grow with the number of rows; the file is removed when the server ends.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import threading
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from align.rows.words import count_words
from align.show.views import View

_MOST_COLUMNS = 200
_LONGEST = 300
_OPERATORS = {"contains": "like", "is": "=", "is not": "!=", "at least": ">=", "at most": "<="}
OPERATORS = tuple(_OPERATORS)
Value = float | str | None


@dataclass(frozen=True)
class Filter:
    """A condition on a column: `contains`, `is`, `is not`, `at least` or `at most` a value."""

    column: str
    operator: str
    value: str


@dataclass(frozen=True)
class Query:
    """Which rows, in which order: all that have `words` in their texts or facts and meet the filters."""

    words: str = ""
    filters: tuple[Filter, ...] = ()
    sort: str = ""
    descending: bool = False


class Catalogue:
    """Rows by place, filtered and sorted by any column.

    Attributes:
        columns: their names, in order of first appearance.
        count: how many rows there are.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="align-show-")
        self._lock = threading.Lock()
        self._base = sqlite3.connect(Path(self._folder.name) / "rows.sqlite", check_same_thread=False)
        self._base.execute("pragma journal_mode = off")
        self._base.execute("pragma synchronous = off")
        self._base.execute("create table rows (place integer primary key, view blob, said text)")
        self.columns: list[str] = []
        self.count = 0

    def close(self) -> None:
        """Remove the database."""
        self._base.close()
        self._folder.cleanup()

    def add(self, shown: View) -> None:
        """Take in one row."""
        values = columns_of(shown)
        for name in values:
            if name not in self.columns and len(self.columns) < _MOST_COLUMNS:
                self._base.execute(f"alter table rows add column c{len(self.columns)}")
                self.columns.append(name)
        known = [(place, values[name]) for place, name in enumerate(self.columns) if name in values]
        names = ", ".join(["place", "view", "said", *(f"c{place}" for place, _ in known)])
        marks = ", ".join("?" * (3 + len(known)))
        said = "\n".join([shown.id, *(text for _, text in shown.texts), *shown.facts.values()]).lower()
        data = zlib.compress(json.dumps(asdict(shown), ensure_ascii=True).encode(), 1)
        row = (self.count, data, _storable(said), *(value for _, value in known))
        self._base.execute(f"insert into rows ({names}) values ({marks})", row)
        self.count += 1

    def found(self, query: Query) -> int:
        """How many rows meet a query."""
        where, values = self._where(query)
        with self._lock:
            return int(self._base.execute(f"select count(*) from rows {where}", values).fetchone()[0])

    def page(self, query: Query, start: int, count: int) -> list[tuple[int, View]]:
        """(place, view) of `count` rows of those that meet a query, from the `start`-th on; ties by place."""
        where, values = self._where(query)
        order = "place"
        if query.sort in self.columns:
            column = f"c{self.columns.index(query.sort)}"
            order = f"{column} is null, {column} {'desc' if query.descending else 'asc'}, place"
        elif query.descending:
            order = "place desc"
        command = f"select place, view from rows {where} order by {order} limit ? offset ?"
        with self._lock:
            rows = self._base.execute(command, [*values, count, start]).fetchall()
        return [(place, _view(data)) for place, data in rows]

    def row(self, place: int) -> View | None:
        """The row at a place of the file, from 0."""
        with self._lock:
            found = self._base.execute("select view from rows where place = ?", [place]).fetchone()
        return None if found is None else _view(found[0])

    def _where(self, query: Query) -> tuple[str, list[Value]]:
        """A condition with marks for its values; names of columns never come from outside."""
        parts: list[str] = []
        values: list[Value] = []
        for word in query.words.lower().split():
            parts.append("instr(said, ?) > 0")
            values.append(_storable(word))
        for item in query.filters:
            if item.column not in self.columns or item.operator not in _OPERATORS:
                continue
            name = f"c{self.columns.index(item.column)}"
            if item.operator == "contains":
                parts.append(f"instr(lower({name}), ?) > 0")
                values.append(_storable(item.value.lower()))
            elif item.operator == "is not":
                parts.append(f"({name} is null or {name} != ?)")
                values.append(_value(item.value))
            else:
                parts.append(f"{name} {_OPERATORS[item.operator]} ?")
                values.append(_value(item.value))
        return ("where " + " and ".join(parts) if parts else "", values)


def columns_of(shown: View) -> dict[str, Value]:
    """What a row can be filtered and sorted by: its id, facts, number of pictures, and words of each text."""
    found: dict[str, Value] = {"id": _storable(shown.id[:_LONGEST])}
    lengths: dict[str, int] = {}
    for label, text in shown.texts:
        if not label.startswith("claim "):
            lengths[label] = lengths.get(label, 0) + count_words(text)
    found |= {f"words of {label}": float(count) for label, count in lengths.items()}
    if {"chosen", "rejected"} <= set(lengths):
        found["words, chosen minus rejected"] = float(lengths["chosen"] - lengths["rejected"])
    found["pictures"] = float(len(shown.images) + len(shown.worse))
    return found | {name: _value(value[:_LONGEST]) for name, value in shown.facts.items()}


def _value(text: str) -> Value:
    """A number where the text is one, so that 9 sorts before 10."""
    try:
        number = float(text)
    except ValueError:
        return _storable(text)
    return number if number == number and abs(number) != float("inf") else text


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _view(data: bytes) -> View:
    fields = json.loads(zlib.decompress(data))
    texts = [(label, text) for label, text in fields.pop("texts")]
    return View(texts=texts, **fields)
