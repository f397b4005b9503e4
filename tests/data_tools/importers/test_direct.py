"""`align sft data.path=theirs.json`: any known format is read by the stage, which says what it took it
for."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from align import dpo, sft
from align.config.recipe import load_recipe
from align.errors import AlignError
from align.rows.foreign import is_ours, row_reader
from align.rows.schema import PreferenceRow, SFTRow, read_rows
from data_tools.importers.formats import FORMATS
from tests.data_tools.importers.shapes import RED
from tests.data_tools.importers.tool_shapes import ALL, assistant, gpt, human, user
from tests.training_recipes import dpo_recipe, sft_recipe, sft_rows

OURS = {"id": "a", "images": [], "messages": [user("Q"), assistant("A")]}


@pytest.mark.parametrize(
    ("row", "ours"),
    [
        (OURS, True),
        (OURS | {"messages": 3}, True),
        (OURS | {"messages": [user([{"type": "text", "text": "Q"}, {"type": "image", "text": None}])]}, True),
        (OURS | {"extra": 1}, False),
        ({"messages": OURS["messages"]}, False),
        (OURS | {"messages": [user("<image>Q"), assistant("A")]}, False),
        (OURS | {"messages": [user("Q"), assistant("A", reasoning_content="Hm.")]}, False),
        (OURS | {"messages": [user([{"type": "image", "image": "a.png"}]), assistant("A")]}, False),
        ({"conversations": [human("Q"), gpt("A")]}, False),
    ],
)
def test_ours_are_told_from_theirs(row: dict[str, Any], ours: bool, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("not JSON\n" + json.dumps(row) + "\n")
    assert is_ours(path) is ours


def _read(path: Path, cls: Any, root: Path | None, into: Path) -> Any:
    reader = row_reader()
    assert reader is not None
    into.mkdir(exist_ok=True)
    return reader(path, cls, root, into, into / "bad.jsonl", 10**6)


def test_pictures_in_rows_are_stored_in_the_stages_own_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "data:image/png;base64," + base64.b64encode(RED).decode()
    turn = user([{"type": "text", "text": "Q"}, {"type": "image_url", "image_url": {"url": url}}])
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "chat.jsonl"
    path.write_text(
        json.dumps({"messages": [turn, assistant("A")], "note": 1}) + "\n" + json.dumps({"x": 1}) + "\n"
    )
    found = _read(path, SFTRow, None, tmp_path / "into")
    (row,) = read_rows(SFTRow, found.path)
    assert (found.image_root / row.images[0]).read_bytes() == RED
    assert [one.name for one in (tmp_path / "data").iterdir()] == ["chat.jsonl"]
    assert found.num_dropped == 1
    said = capsys.readouterr().out
    assert "for openai:" in said and "in meta: the key 'note'" in said and "align import openai" in said


def test_the_other_stages_rows_and_a_wrong_root_are_said(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    pair = {"question": "Q", "chosen": "A", "rejected": "B"}
    path.write_text(json.dumps([pair]))
    with pytest.raises(AlignError, match="preference pairs, not instruction rows") as caught:
        _read(path, SFTRow, None, tmp_path / "into")
    assert "align dpo" in caught.value.fix
    path.write_text(json.dumps([pair, *[pair | {"image": "gone.png"}] * 9]))
    with pytest.raises(AlignError, match="9 of 9 rows with pictures") as caught:
        _read(path, PreferenceRow, None, tmp_path / "into")
    assert "data.image_root" in caught.value.fix


def test_sft_trains_on_llavas_json(base_checkpoint: Path, tiny_world: Path, tmp_path: Path) -> None:
    rows = sft_rows(tiny_world)
    theirs = [
        {"id": row.id, "image": row.images[0]}
        | {"conversations": [human("<image>\n" + row.messages[0].text), gpt(row.messages[-1].text)]}
        for row in rows
    ]
    theirs.append(theirs[0] | {"video": "v.mp4"})
    path = tmp_path / "llava.json"
    path.write_text(json.dumps(theirs, indent=1))
    recipe = sft_recipe(tmp_path, base_checkpoint, tiny_world, data__path=str(path), trainer__max_steps=1)
    done = sft.run(load_recipe(sft.Recipe, recipe))
    assert done.manifest()["metrics"]["rows"] == len(rows)
    (bad,) = [json.loads(line) for line in (done.final / "import_quarantine.jsonl").open()]
    assert bad["reason"] == "the row is on a video"
    with pytest.raises(AlignError, match="instruction rows, not preference pairs"):
        dpo.run(
            load_recipe(dpo.Recipe, dpo_recipe(tmp_path, base_checkpoint, tiny_world, data__path=str(path)))
        )


@pytest.mark.parametrize(
    "shape",
    [
        one
        for one in ALL
        if one.format not in ("csr", "mmpr", "rlaif_v_formatted") and FORMATS[one.format].needs
    ],
    ids=lambda one: one.format,
)
def test_every_form_is_recognised(shape: Any, tmp_path: Path) -> None:
    from data_tools.importers.recognise import recognise

    known = FORMATS[shape.format]
    found = recognise(str(shape.write(tmp_path)))
    # files of several forms are taken for the widest of them, which reads all
    assert found.convert is known.convert or {found.name, shape.format} & {"rows"}
