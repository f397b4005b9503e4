"""Each published shape becomes exactly the rows it should, and each row that cannot says why."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from align.cli import main
from align.rows.schema import PreferenceRow, SFTRow, read_rows
from data_tools.importers.formats import FORMATS
from tests.data_tools.importers.shapes import SHAPES, Shape
from tests.data_tools.importers.tool_shapes import ALL


def run(shape: Shape, folder: Path, suffix: str) -> tuple[list[SFTRow | PreferenceRow], list[dict]]:
    source, out = shape.write(folder), folder / f"out{suffix}"
    words = [str(folder / word) if word.endswith(".json") else word for word in shape.words]
    root = folder if not FORMATS[shape.format].embeds else folder / "out_images"
    command = ["import", shape.format, str(source), str(out), "--image_root", str(root), *words]
    assert main(command) == 0
    quarantine = folder / f"out{suffix}.quarantine.jsonl"
    bad = [json.loads(line) for line in quarantine.read_text().splitlines()] if quarantine.exists() else []
    cls = PreferenceRow if shape.answers else SFTRow
    return list(read_rows(cls, out)), bad


def test_every_format_has_a_golden_file() -> None:
    assert {shape.format for shape in ALL} == set(FORMATS)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("shape", ALL, ids=lambda shape: shape.format)
def test_published_rows_become_ours(shape: Shape, suffix: str, tmp_path: Path) -> None:
    rows, bad = run(shape, tmp_path, suffix)
    reasons = [line["reason"] for line in bad]
    assert {reason: reasons.count(reason) for reason in reasons} == shape.dropped
    turns = [[(turn.role, turn.marked) for turn in _asked(row)] for row in rows]
    assert turns == shape.turns
    if shape.answers:
        assert [(r.chosen[0].text, r.rejected[0].text) for r in rows] == shape.answers  # type: ignore[union-attr]
    names = [
        [name if isinstance(name, str) else f"{_stored(name)}.png" for name in row] for row in shape.images
    ]
    assert [row.images for row in rows] == names
    assert len({row.id for row in rows}) == len(rows)
    for row, expected in zip(rows, shape.meta, strict=False):
        assert row.meta.items() >= ({"source": shape.format} | expected).items()


def test_re_align_keeps_the_retrieved_image_as_the_worse_one(tmp_path: Path) -> None:
    shape = next(shape for shape in SHAPES if shape.format == "re_align")
    rows, _ = run(shape, tmp_path, ".jsonl")
    assert [row.rejected_images for row in rows] == [["b.png"]]  # type: ignore[union-attr]


def _asked(row: SFTRow | PreferenceRow) -> list:
    return row.messages if isinstance(row, SFTRow) else row.prompt


def _stored(data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    return f"imported/{digest[:2]}/{digest}"
