"""Sources stream, number their rows, name what is broken, and never give a part for the whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align.cli import main
from align.errors import AlignError
from align.rows.schema import PreferenceRow, SFTRow, read_rows
from data_tools.importers import sources
from data_tools.importers.sources import open_source
from tests.data_tools.importers.shapes import RED

ROW = {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}


def values(path: Path) -> list:
    return [item.value for item in open_source(str(path)).items()]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b"\n  "])
def test_a_json_list_and_json_lines_are_told_apart_by_their_first_byte(tmp_path: Path, mark: bytes) -> None:
    lines, whole = tmp_path / "lines.json", tmp_path / "whole.json"
    lines.write_bytes(mark + b'{"a": 1}\n\n{"a": 2.5}\n')
    whole.write_bytes(mark + b'[{"a": 1}, {"a": 2.5}]')
    assert values(lines) == values(whole) == [{"a": 1}, {"a": 2.5}]


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name, number in (("b.jsonl", 2), ("a.jsonl", 1), ("sub/c.jsonl", 3)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"n": number}) + "\n")
    assert [value["n"] for value in values(tmp_path)] == [1, 2, 3]


def test_a_broken_line_costs_itself_and_a_broken_list_stops(tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"a": 1}\n{"a": \n' + "[" * 5000 + '\n{"a": ' + "9" * 5000 + "}\n")
    first, *broken = values(lines)
    assert first == {"a": 1}
    assert [type(value) for value in broken] == [AlignError] * 3
    whole = tmp_path / "whole.json"
    whole.write_text('[{"a": 1}, {"a": 2}, {"a"')
    with pytest.raises(AlignError, match="not whole JSON") as caught:
        values(whole)
    assert "after 2 items" in caught.value.where


def test_a_source_that_breaks_off_leaves_no_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out = tmp_path / "whole.json", tmp_path / "rows.jsonl"
    whole.write_text(json.dumps([ROW, ROW])[:-5])
    out.write_text("earlier\n")
    assert main(["import", "llava", str(whole), str(out)]) == 1
    assert "not whole JSON" in capsys.readouterr().err
    assert out.read_text() == "earlier\n"
    assert not list(tmp_path.glob("*.partial"))


def test_a_hub_dataset_streams_with_its_pictures_as_bytes(tmp_path: Path) -> None:
    """`datasets` reads a local folder by the same call as a hub id."""
    from datasets import Dataset, Features, Image, Value

    folder = tmp_path / "data"
    folder.mkdir()
    features = Features({"question": Value("string"), "image": Image()})
    row = {"question": ["Q"] * 3, "image": [{"bytes": RED, "path": None}] * 3}
    Dataset.from_dict(row, features=features).to_parquet(folder / "train.parquet")
    found: list[Any] = [item.value for item in sources._hub_rows(str(folder), "train")]
    assert [value["image"]["bytes"] for value in found] == [RED] * 3
    with pytest.raises(AlignError, match="from the hub"):
        list(sources._hub_rows(str(folder), "nosplit"))


def test_limit_and_ids(tmp_path: Path) -> None:
    source, out = tmp_path / "rows.jsonl", tmp_path / "out.parquet"
    source.write_text(json.dumps({"id": "same"} | ROW) + "\n" + json.dumps({"id": "same"} | ROW) + "\n" * 3)
    assert main(["import", "sharegpt", str(source), str(out)]) == 0
    rows = list(read_rows(SFTRow, out))
    assert [row.id for row in rows] == ["sharegpt-0", "sharegpt-1"]
    assert [row.meta["source_id"] for row in rows] == ["same", "same"]
    assert main(["import", "sharegpt", str(source), str(out), "--limit", "1"]) == 0
    assert [row.id for row in read_rows(SFTRow, out)] == ["sharegpt-0"]


def test_rows_of_ours_go_through_unchanged(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(RED)
    pair = {
        "images": ["a.png"],
        "rejected_images": ["a.png"],
        "prompt": [{"role": "user", "content": "Q"}],
        "chosen": [{"role": "assistant", "content": "A"}],
        "rejected": [{"role": "assistant", "content": "B"}],
        "spans": {"rejected": [{"start": 0, "end": 1, "weight": 2.0}]},
    }
    source, out = tmp_path / "rows.jsonl", tmp_path / "out.parquet"
    source.write_text(json.dumps({"id": "1", "meta": {"margin": 1.5}} | pair) + "\n")
    assert main(["import", "rows", str(source), str(out)]) == 0
    (row,) = read_rows(PreferenceRow, out)
    assert row.model_dump(exclude_defaults=True, include=set(pair)) == pair
    assert row.meta == {"source": "rows", "source_id": "1", "margin": 1.5}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["lava", "x.json", "o.jsonl"], "did you mean 'llava'"),
        (["llava", "nowhere.json", "o.jsonl"], "no such file"),
        (["llava", "pyproject.toml", "o.jsonl"], "unknown file format"),
        (["llava", "x.json", "o.csv"], "unknown row format"),
    ],
)
def test_what_cannot_be_done_is_said(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", *words]) in (1, 2)
    assert says in capsys.readouterr().err


def test_nothing_usable_is_an_error_that_keeps_the_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"conversations": []}\n7\n')
    assert main(["import", "llava", str(source), str(out)]) == 1
    printed = capsys.readouterr()
    assert "no row could be used" in printed.err
    assert "dropped      1  no conversation" in printed.out
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "out.jsonl.quarantine.jsonl").open()]
    assert reasons == ["no conversation", "the row is no object"]
    assert not out.exists()


def test_a_list_with_nan_a_huge_number_and_deep_nesting_costs_those_rows_alone(tmp_path: Path) -> None:
    deep, huge = "[" * 100_000 + "]" * 100_000, "9" * 5000
    path = tmp_path / "rows.json"
    path.write_text(
        f'[{{"a": NaN}}, {{"a": {deep}}}, {{"a": {huge}}}, {{"a": "x, ]}}\\\\", "b": Infinity}}, 4]'
    )
    first, nested, number, text, last = values(path)
    assert str(first) == "{'a': nan}" and text == {"a": "x, ]}\\", "b": float("inf")} and last == 4
    assert "nested too deeply" in nested.what and "4300" in number.what


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.csv"])
def test_other_encodings_are_read_whole(tmp_path: Path, encoding: str, name: str) -> None:
    rows = [{"question": "Größe, 大?", "answer": "1"}, {"question": "Q", "answer": "2"}]
    if name == "rows.json":
        text = json.dumps(rows, ensure_ascii=False)
    elif name == "rows.jsonl":
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    else:
        text = 'question,answer\r\n"Größe, 大?",1\r\nQ,2\r\n'
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert values(tmp_path / name) == rows


def test_bytes_of_another_encoding_and_two_values_in_a_line_cost_themselves(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "na\xefve"}\n{"a": 1} {"a": 2}\n{"a": 3}\n')
    first, latin, two, last = values(path)
    assert (first, last) == ({"a": 1}, {"a": 3})
    assert latin.what.startswith("not UTF-8: byte 0xef") and two.what.startswith(
        "several JSON values in one line"
    )


def test_rows_printed_over_several_lines_are_read(tmp_path: Path) -> None:
    rows = [{"a": [1, 2]}, {"a": {"b": 3}}]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row, indent=2) for row in rows))
    assert values(path) == rows


def test_long_values_go_over_the_ends_of_what_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_tools.importers import json_stream

    rows = [{"a": "\\" * n + "é" * n, "b": [n, -n / 7, True, None, {"c": "]"}]} for n in range(40)]
    path = tmp_path / "rows.json"
    for size in (1, 2, 3, 7, 50, 1000):
        monkeypatch.setattr(json_stream, "_CHUNK", size)
        path.write_text(json.dumps(rows))
        assert values(path) == rows
        path.write_text(json.dumps({"x": rows, "y": 3, "rows": rows}))
        assert list(sources.json_section(path, "rows")) == rows


def test_a_webdataset_tar_gives_a_row_a_sample(tmp_path: Path) -> None:
    import io
    import tarfile

    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in (
            ("x/0.jpg", RED),
            ("x/0.json", b'{"question": "Q", "answer": "A"}'),
            ("x/1.0.png", RED),
            ("x/1.1.png", RED),
            ("x/1.txt", "Größe".encode()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    one, two = values(path)
    assert one == {"question": "Q", "answer": "A", "image": RED, "id": "x/0"}
    assert two == {"txt": "Größe", "images": [RED, RED], "id": "x/1"}
    out = tmp_path / "rows.jsonl"
    assert main(["import", "auto", str(path), str(out), "--limit", "1"]) == 0
    (row,) = read_rows(SFTRow, out)
    assert (tmp_path / "rows_images" / row.images[0]).read_bytes() == RED


def test_cells_of_a_table_hold_lists(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('images,answer\n"[""a.png""]",x\n"[\'a.png\', None]",\n[half,y\nz\n')
    *rows, bad = values(path)
    assert rows == [
        {"images": ["a.png"], "answer": "x"},
        {"images": ["a.png", None], "answer": None},
        {"images": "[half", "answer": "y"},
    ]
    assert bad.what.startswith("not as many cells as columns")


def test_auto_refuses_what_it_cannot_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "I", "outcome": "O"}\n')
    assert main(["import", "auto", str(path), str(tmp_path / "o.jsonl")]) == 1
    said = capsys.readouterr().err
    assert "no known format has rows with the keys instruction, outcome" in said
    assert "alpaca (lacks output or chosen or response)" in said


def test_nearly_no_picture_found_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"image": "gone.png", "question": "Q", "answer": "A"}
    path.write_text(json.dumps({"question": "Q", "answer": "A"}) + "\n" + (json.dumps(row) + "\n") * 3)
    assert main(["import", "auto", str(path), str(tmp_path / "o.jsonl")]) == 1
    said = capsys.readouterr().err
    assert "3 of 3 rows with pictures" in said and "--image_root" in said


def test_the_table_says_what_was_moved_and_why_rows_were_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.jsonl"
    rows: list[dict[str, Any]] = [
        {"question": "Q", "answer": "A", "split": "train"},
        {"question": "Q", "answer": "A", "video": "v.mp4"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["import", "auto", str(path), str(tmp_path / "o.jsonl")]) == 0
    said = capsys.readouterr().out
    assert f"took {path} for flat:" in said
    assert "in      1 kept rows: in meta: the key 'split'" in said
    assert "dropped      1  the row is on a video" in said
    assert f"e.g. the row is on a video: {path}:2: the key 'video'; " in said
