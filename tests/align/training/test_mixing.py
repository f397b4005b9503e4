"""Several sets in one run: shares and caps by hand, a hold-out by picture, the same draw each time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align import sft
from align.config.recipe import load_recipe, validate
from align.errors import AlignError, RecipeError
from align.inputs.training_data import DataSection
from align.rows.schema import Message, SFTRow, read_rows, write_rows
from align.training.mixing import Source, mix
from tests.training_recipes import sft_recipe, sft_rows


def _source(
    folder: Path, name: str, count: int, share: float | None = None, cap: int | None = None
) -> Source:
    """`count` rows, two on each picture of the set's own folder."""
    root = folder / f"{name}_pictures"
    root.mkdir()
    rows = []
    for number in range(count):
        (root / f"{number // 2}.png").touch()
        turns = [Message(role="user", content="Q"), Message(role="assistant", content="A")]
        rows.append(SFTRow(id=str(number), images=[f"{number // 2}.png"], messages=turns))
    write_rows(folder / f"{name}.jsonl", rows)
    return Source(name, folder / f"{name}.jsonl", root, share, cap)


def _mixed(folder: Path, sources: list[Source], seed: int = 0, heldout: float = 0.0) -> tuple[Any, Any, Any]:
    out, held = folder / "out.jsonl", folder / "held.jsonl"
    root, table = mix(SFTRow, sources, seed, heldout, out, held)
    rows = list(read_rows(SFTRow, out))
    assert root is not None and folder in (root, *root.parents)
    assert all((root / name).is_file() for row in rows for name in row.images)
    return rows, list(read_rows(SFTRow, held)), {line.set: line for line in table}


def test_shares_take_as_many_rows_as_keep_them(tmp_path: Path) -> None:
    """10 rows are 0.5 of 20, of which 40 rows give 6 for 0.3 and 10 give 4 for 0.2."""
    sources = [_source(tmp_path, *one) for one in (("a", 10, 0.5), ("b", 40, 0.3), ("c", 10, 0.2))]
    rows, _, table = _mixed(tmp_path, sources)
    assert [(line.used, line.left_out) for line in table.values()] == [(10, 0), (6, 34), (4, 6)]
    assert {row.meta["set"] for row in rows} == {"a", "b", "c"} and rows[0].id == "a:0"
    again, _, _ = _mixed(tmp_path, sources)
    other, _, _ = _mixed(tmp_path, sources, seed=1)
    assert [row.id for row in again] == [row.id for row in rows] != [row.id for row in other]


def test_a_cap_limits_its_set_alone(tmp_path: Path) -> None:
    _, _, table = _mixed(tmp_path, [_source(tmp_path, "a", 10, cap=4), _source(tmp_path, "b", 5)])
    assert [(line.used, line.left_out) for line in table.values()] == [(4, 6), (5, 0)]


def test_a_picture_is_held_out_with_all_its_rows(tmp_path: Path) -> None:
    rows, held, table = _mixed(tmp_path, [_source(tmp_path, "a", 200)], heldout=0.2)
    assert not {row.images[0] for row in rows} & {row.images[0] for row in held}
    assert len(rows) + len(held) == 200 and table["a"].held_out == len(held)
    assert 10 <= len(held) <= 80 and len(held) % 2 == 0


def test_bad_rows_are_counted(tmp_path: Path) -> None:
    source = _source(tmp_path, "a", 4)
    source.path.write_text(source.path.read_text() + '{"id": "x"}\nno JSON\n')
    rows, _, table = _mixed(tmp_path, [source])
    assert len(rows) == 4 and table["a"].bad == 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([{"path": "a", "share": 0.5}, {"path": "b"}], "shares are for all sets"),
        ([{"path": "a", "share": 0.5}, {"path": "b", "share": 0.4}], "shares are for all sets"),
        ([{"path": "x/a.json"}, {"path": "y/a.jsonl"}], "two sets of one name"),
        ([{"path": "a", "weight": 2}], "weight"),
        ({"path": "a", "heldout_share": 0.1}, "heldout_share is for sets"),
    ],
)
def test_what_does_not_fit_is_said(given: Any, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        validate(DataSection, given, "test")


def test_a_list_is_the_sets_and_all_files_are_inputs() -> None:
    section = DataSection.model_validate([{"path": "a.json", "image_root": "r"}, {"path": "b.jsonl"}])
    assert section.path == Path("a.json") and section.names() == ["a", "b"]
    inputs = {"data of a": Path("a.json"), "data of b": Path("b.jsonl"), "images of a": Path("r")}
    assert section.inputs() == inputs
    assert DataSection(path=Path("a"), image_root=Path("r")).inputs() == {
        "data": Path("a"),
        "images": Path("r"),
    }


def test_sft_trains_on_two_sets(base_checkpoint: Path, tiny_world: Path, tmp_path: Path) -> None:
    rows = sft_rows(tiny_world)
    ours, theirs = tmp_path / "ours.jsonl", tmp_path / "theirs.json"
    write_rows(ours, rows[:2])
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "This."}]
    other = [{"image": rows[0].images[0], "conversations": turns}, {"conversations": turns}]
    theirs.write_text(json.dumps(other))
    recipe = sft_recipe(tmp_path, base_checkpoint, tiny_world, trainer__max_steps=1)
    root = str(tiny_world / "images")
    sets = [{"path": str(path), "image_root": root} for path in (ours, theirs)]
    done = sft.run(load_recipe(sft.Recipe, recipe, [f"data.sets={json.dumps(sets)}"]))
    metrics = done.manifest()["metrics"]
    assert metrics["rows"] == 3
    table = [(line["set"], line["used"], line["bad"]) for line in metrics["sets"]]
    assert table == [("ours", 2, 0), ("theirs", 1, 1)]
    with pytest.raises(AlignError, match="could not be used"):
        sft.run(load_recipe(sft.Recipe, recipe, [f"data.sets={json.dumps(sets)}", "data.strict=true"]))
