"""The one shape of `quarantine.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align.errors import AlignError
from align.rows.quarantine import Quarantine
from align.rows.schema import PromptRow, read_rows


def test_a_line_has_what_is_known_and_there_is_no_file_without_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    with Quarantine(path, "rows") as bad:
        bad.add("a.json:1", "kind")
        bad.add("a.json:2", "kind", "why", {"id": 3, "bytes": b"12", "text": "x" * 3000}, "three")
    first, second = map(json.loads, path.read_text().splitlines())
    assert first == {"where": "a.json:1", "reason": "kind"}
    assert (second["id"], second["detail"], second["row"]["bytes"]) == ("three", "why", "<2 bytes>")
    assert second["row"]["text"].endswith("... (3000 characters)")
    assert bad.first == "a.json:1: kind" and bad.tally.examples == {"kind": ["a.json:1", "three"]}
    with Quarantine(path, "rows"):
        pass
    assert not path.exists()


def test_rows_that_are_none_are_refused_with_place_and_content(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "a"}\nnot JSON\n')
    with Quarantine(tmp_path / "bad.jsonl", "rows") as bad:
        assert list(read_rows(PromptRow, rows, bad.refuse)) == []
    first, second = map(json.loads, (tmp_path / "bad.jsonl").read_text().splitlines())
    assert (first["where"], first["id"], first["reason"]) == ("rows.jsonl:1", "a", "schema")
    assert "prompt" in first["detail"] and first["row"] == {"id": "a"}
    assert second["where"] == "rows.jsonl:2" and "not JSON" in second["detail"]


def test_refused_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with (
        pytest.raises(AlignError, match="bad row: too long") as raised,
        Quarantine(tmp_path / "q", "rows", AlignError("bad row", fix="mend it")) as bad,
    ):
        bad.add("line 3", "too long", row_id="x")
    assert (raised.value.where, raised.value.fix) == ("line 3 x", "mend it")
