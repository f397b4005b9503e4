"""Rows: checked, and equal after JSONL and Parquet with spans and rejected images; files of any encoding."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from align.errors import AlignError
from align.rows.parts import split_rows
from align.rows.schema import PreferenceRow, PromptRow, check_row, read_rows, write_rows

PLAIN: dict[str, Any] = {
    "id": "a",
    "images": ["cat.png"],
    "prompt": [{"role": "user", "content": "What is it?"}],
    "chosen": [{"role": "assistant", "content": "A cat."}],
    "rejected": [{"role": "assistant", "content": "A dog."}],
    "meta": {"margin": 1.5},
}
RICH = {
    **PLAIN,
    "id": "b",
    "rejected_images": ["dog.png"],
    "spans": {"chosen": [{"start": 2, "end": 5, "weight": 3}], "rejected": []},
}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_rows_with_and_without_extras_come_back_equal(tmp_path: Path, name: str) -> None:
    rows = [check_row(PreferenceRow, values, "test") for values in (PLAIN, RICH)]
    write_rows(tmp_path / name, rows)
    assert list(read_rows(PreferenceRow, tmp_path / name)) == rows
    assert rows[1].spans.chosen[0].weight == 3.0 and rows[0].spans.chosen == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"spans": {"chosen": [{"start": 2, "end": 7, "weight": 3}]}}, "beyond its answer"),
        ({"spans": {"chosen": [{"start": 2, "end": 2, "weight": 3}]}}, "beyond its answer"),
        ({"spans": {"chosen": [{"start": 0, "end": 2, "weight": -1}]}}, "greater than or equal to 0"),
        ({"spans": {"prompt": []}}, "unknown field 'spans.prompt'"),
        ({"rejected_images": ["dog.png", "cow.png"]}, "as many as images"),
    ],
)
def test_extras_that_do_not_fit_are_bad_rows(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(AlignError, match=reason):
        check_row(PreferenceRow, {**PLAIN, **change}, "row 1")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": "cat.png"}, "unknown field 'image' (did you mean 'images'?)"),
        ({"rejected": PLAIN["chosen"]}, "bad PreferenceRow: chosen and rejected are the same text"),
        (
            {"rejected": [{"role": "assistant", "content": " A  cat.\n"}]},
            "chosen and rejected are the same text",
        ),
        ({"prompt": [{"role": "user"}]}, "missing field 'prompt.0.content'"),
    ],
)
def test_a_bad_row_is_told_in_plain_words(change: dict[str, Any], said: str) -> None:
    with pytest.raises(AlignError) as error:
        check_row(PreferenceRow, {**PLAIN, **change}, "rows.jsonl:1")
    assert said in error.value.what and "Value error" not in error.value.what


def test_other_encodings_are_bad_rows_and_a_byte_order_mark_is_none(tmp_path: Path) -> None:
    """A Latin-1 line read as UTF-8 would put replacement characters into what is trained on."""
    line = '{"id": "a", "prompt": [{"role": "user", "content": "naïve"}]}\r\n'
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line.encode("utf-8") + line.encode("latin-1"))
    column = line.index("ï") + 1
    for part in (None, *split_rows(path)):
        bad: list[Any] = []
        [row] = read_rows(PromptRow, path, partial(_keep, bad), part)
        assert row.prompt[0].content == "naïve"
        assert bad == [(f"{path}:2", f"not UTF-8: byte 0xef at column {column}")]


def _keep(bad: list[Any], where: str, reason: str, _: Any) -> None:
    bad.append((where, reason))
