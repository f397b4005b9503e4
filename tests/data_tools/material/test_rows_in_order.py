"""Rows by their ids, whatever order they stand in."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.errors import AlignError
from align.rows.schema import Message, PromptRow, write_rows
from data_tools.material.rows_in_order import RowsInOrder


def row(name: str) -> PromptRow:
    return PromptRow(id=name, prompt=[Message(role="user", content=f"Frage zu {name}: ä猫\u2028?")])


@pytest.mark.parametrize("names", ["abcd", "dbca"])
def test_rows_come_by_their_ids(names: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, map(row, names))
    path.write_text("\n" + path.read_text(encoding="utf-8").replace("\n", "\n\n"), encoding="utf-8")
    found = RowsInOrder(PromptRow, path, ("id",))
    assert found.count == 4
    for _ in range(2):
        assert list(found) == list(map(row, "abcd"))


def test_other_formats_are_held(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", map(row, "cab"))
    assert list(RowsInOrder(PromptRow, tmp_path / "rows.parquet", ("id",))) == list(map(row, "abc"))
    path = tmp_path / "rows.jsonl"
    write_rows(path, map(row, "cab"))
    path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16"))
    with pytest.raises(AlignError, match="UTF-16"):
        RowsInOrder(PromptRow, path, ("id",))


def test_what_cannot_be_sorted_is_said(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, map(row, "aba"))
    with pytest.raises(AlignError, match="duplicate ids"):
        RowsInOrder(PromptRow, path, ("id",))
    path.write_text('{"id": "a"}\n{"name": 1}\n')
    with pytest.raises(AlignError, match="missing field"):
        RowsInOrder(PromptRow, path, ("id",))
    with pytest.raises(AlignError, match="no such file"):
        RowsInOrder(PromptRow, tmp_path / "none.jsonl", ("id",))
