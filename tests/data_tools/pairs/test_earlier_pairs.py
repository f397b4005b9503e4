"""Pairs of earlier rounds in a later one: how many, which, and that nothing is told twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align.pipeline import Selection, load_pipeline, run_pipeline
from align.rows.schema import Message, PreferenceRow, read_rows, write_rows
from data_tools.pairs.earlier import earlier_rows
from tests.align.pipeline.loop_pipeline import write_loop


def pair(name: str, **meta: object) -> PreferenceRow:
    said = [[Message(role="assistant", content=text)] for text in (f"a dog {name}", "a dog and a car")]
    prompt = [Message(role="user", content="Describe.")]
    return PreferenceRow(id=name, prompt=prompt, chosen=said[0], rejected=said[1], meta=dict(meta))


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """Two rounds of 10 pairs with the same ids; the second holds 2 more that it took from the first."""
    found = []
    for name in ("pairs", "round2_pairs"):
        rows = [pair(f"p{n}", margin=1.0) for n in range(10)]
        if found:
            rows += [pair(f"pairs/p{n}", margin=1.0, earlier="pairs") for n in range(2)]
        (tmp_path / name).mkdir()
        write_rows(tmp_path / name / "pairs.parquet", rows)
        found.append(tmp_path / name)
    return found


def test_a_share_of_all(sources: list[Path]) -> None:
    # A quarter of all beside 12 new ones are 4; 16 is a quarter of 64, and only 20 are there.
    assert len(list(earlier_rows(sources, 0.25, 12, seed=0))) == 4
    assert len(list(earlier_rows(sources, 0.5, 7, seed=0))) == 7
    everything = list(earlier_rows(sources, 0.9, 100, seed=0))
    assert len(everything) == 20 == len({row.id for row in everything})
    assert {row.meta["earlier"] for row in everything} == {"pairs", "round2_pairs"}
    assert everything[0].id == "pairs/p0" and everything[0].meta == {"margin": 1.0, "earlier": "pairs"}
    assert list(earlier_rows([], 0.5, 100, seed=0)) == []


def test_the_same_rows_whatever_else_is_there(sources: list[Path]) -> None:
    few = {row.id for row in earlier_rows(sources, 0.25, 12, seed=0)}
    more = {row.id for row in earlier_rows(sources, 0.5, 12, seed=0)}
    other = {row.id for row in earlier_rows(sources, 0.25, 12, seed=1)}
    assert few < more and few != other
    files = [source / "pairs.parquet" for source in sources]
    assert {row.id for row in earlier_rows(files, 0.25, 12, seed=0)} == few


def test_a_later_round_takes_them_in(tmp_path: Path) -> None:
    path = write_loop(tmp_path)
    text = path.read_text().replace(
        "length_tolerance: null", 'length_tolerance: null\n  earlier: "${round.earlier.pairs}"'
    )
    path.write_text(text)
    overrides = ["rounds=2", "pairs.earlier_share=0.5", "round.by_round.pairs.max_pairs_per_prompt=[2]"]
    run_pipeline(load_pipeline(path, overrides), Selection(until="round2_pairs"))
    counts = []
    for name in ("pairs", "round2_pairs"):
        folder = tmp_path / "run" / name
        rows = list(read_rows(PreferenceRow, folder / "pairs.parquet"))
        metrics = json.loads((folder / "manifest.json").read_text())["metrics"]
        counts.append((len(rows), metrics["pairs"], metrics.get("earlier_pairs", 0)))
        assert len({row.id for row in rows}) == len(rows)
    # Two train prompts with two pairs each; in the second round half of all come from the first.
    assert counts == [(4, 4, 0), (8, 4, 4)]
    inputs = json.loads((tmp_path / "run" / "round2_pairs" / "manifest.json").read_text())["inputs"]
    assert inputs["earlier_0"]["path"] == f"{tmp_path}/run/pairs"
