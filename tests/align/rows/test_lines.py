"""Whatever a file of rows holds, each row comes as a value or as an error in its place; a whole file that
is no such file says what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.errors import AlignError
from align.rows.schema import PreferenceRow, PromptRow, SFTRow, raw_rows, read_rows

GOOD = {"id": "a", "prompt": [{"role": "user", "content": "Q"}]}


def read(path: Path) -> tuple[list[str], list[str]]:
    bad: list[str] = []
    rows = [row.id for row in read_rows(PromptRow, path, lambda where, reason, raw: bad.append(reason))]
    return rows, bad


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": "b", "prompt": [{"role": "user", "content": "cut \\ud83d"}]}', "half a character"),
        ('{"id": "b\\uDE00", "prompt": [{"role": "user", "content": "Q"}]}', "half a character"),
        (
            '{"id": "b", "prompt": [{"role": "user", "content": "Q"}], "meta": {"x\\ud83d": 1}}',
            "half a character",
        ),
        (json.dumps(GOOD) + " " + json.dumps(GOOD), "several JSON values in one line"),
        ('{"id": ' + "9" * 5000 + "}", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"id": "b"', "not JSON"),
        ("7", "bad PromptRow"),
    ],
)
def test_a_bad_line_costs_itself(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([json.dumps(GOOD), line, json.dumps(GOOD | {"id": "z"})]) + "\n")
    rows, bad = read(path)
    assert rows == ["a", "z"]
    assert len(bad) == 1 and bad[0].startswith(reason)


def test_a_whole_character_in_two_escapes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD | {"id": "😀"}) + "\n")
    assert "\\ud83d" in path.read_text()
    assert read(path) == (["😀"], [])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_in_another_encoding_is_refused_whole(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes((json.dumps(GOOD) + "\n").encode(encoding) * 3)
    with pytest.raises(AlignError, match="UTF-16 or UTF-32") as caught:
        read(path)
    assert "align import" in caught.value.fix


@pytest.mark.parametrize("rows", [GOOD, [GOOD, GOOD]])
def test_rows_over_several_lines_are_refused_with_a_hint(tmp_path: Path, rows: Any) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text((json.dumps(rows, indent=2) + "\n") * 2)
    with pytest.raises(AlignError, match="stands over several lines") as caught:
        read(path)
    assert "jq -c" in caught.value.fix


def test_a_text_that_is_no_utf8_costs_its_row_of_parquet(tmp_path: Path) -> None:
    texts = pyarrow.array([b"a", b"\xff", b"c"], pyarrow.binary()).view(pyarrow.string())
    turn = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
    prompts = pyarrow.array([[{"role": "user", "content": "Q"}]] * 3, pyarrow.list_(turn))
    path = tmp_path / "rows.parquet"
    pq.write_table(pyarrow.table({"id": texts, "prompt": prompts}), path)
    rows, bad = read(path)
    assert rows == ["a", "c"] and bad == ["not UTF-8: byte 0xff in a text"]


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("\ud83d")
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
KEYS = st.sampled_from(["id", "images", "messages", "prompt", "chosen", "rejected", "spans", "meta", "role"])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.dictionaries(KEYS, VALUES, max_size=6) | VALUES, max_size=4), junk=st.binary(max_size=20)
)
def test_any_lines_give_rows_or_reasons(tmp_path_factory: Any, rows: list[Any], junk: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(b"{}\n" + b"\n".join(json.dumps(row).encode() for row in rows) + b"\n" + junk)
    found = list(raw_rows(path))
    assert len(found) >= 1 + len(rows)
    for cls in (SFTRow, PreferenceRow, PromptRow):
        bad: list[str] = []
        good = list(read_rows(cls, path, lambda where, reason, raw, bad=bad: bad.append(reason)))
        assert len(good) + len(bad) == len(found) and all(bad)
        for row in good:
            row.model_dump_json()
