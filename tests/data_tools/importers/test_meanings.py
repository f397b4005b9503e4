"""Every format with every key and marker that carries meaning: it is read, or its row is refused by name."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from align.errors import AlignError
from data_tools.importers.convert import NOTHING_USABLE, Job, import_rows
from data_tools.importers.formats import FORMATS
from data_tools.importers.pictures import Pictures
from data_tools.importers.published import Options
from tests.data_tools.importers.meanings import MEANING
from tests.data_tools.importers.shapes import Shape
from tests.data_tools.importers.test_fuzz import jsonable
from tests.data_tools.importers.tool_shapes import ALL, assistant, gpt, human, user

ONE = [shape for shape in ALL if shape.format not in ("dataset_info", "internvl_meta")]
# What a format reads of these keys, because the set that it is for has them.
READ = {
    "csr": {"type"},
    "ha_dpo_pope": {"reject"},
    "re_align": {"retrieved_image"},
    "llava_rlhf": {"preference"},
    "alpaca": {"history"},
    "flat": {"history"},
    "flat_pairs": {"history"},
    "query_response": {"history"},
    "rows": set(),
}


def _one_row(shape: Shape) -> Any:
    """The content cut to its first row, which is a good one."""
    content = jsonable(copy.deepcopy(shape.content))
    if isinstance(content, list):
        return content[:1]
    if FORMATS[shape.format].join:
        return content
    return dict(list(content.items())[:1])


def _first(content: Any) -> dict[str, Any]:
    """The object that holds the first row's keys."""
    if isinstance(content, list):
        return content[0]
    for name in ("annotations", "questions"):
        if isinstance(content.get(name), list):
            return content[name][0]
    row = next(iter(content.values()))
    return row[0] if isinstance(row, list) else row


def _run(shape: Shape, content: Any, folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    Shape.write(Shape(shape.format, "unused.json", [], [], None, [], others=shape.others), folder)
    source, out = folder / "source.json", folder / "out.jsonl"
    source.write_text(json.dumps(content))
    options = Options(annotations=folder / "answers.json")
    strip = shape.words[1] if "--strip" in shape.words else ""
    job = Job(FORMATS[shape.format], str(source), out, Pictures(folder, strip), options)
    try:
        import_rows(job)
    except AlignError as error:
        assert error.what == NOTHING_USABLE
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    bad = job.quarantine_path
    return rows, [json.loads(line) for line in bad.read_text().splitlines()] if bad.exists() else []


EVERY = [(kind, key, value) for kind, keys in MEANING.items() for key, value in keys.items()]


@pytest.mark.parametrize("shape", ONE, ids=lambda shape: shape.format)
def test_a_key_with_meaning_is_read_or_its_row_refused(shape: Shape, tmp_path: Path) -> None:
    plain, _ = _run(shape, _one_row(shape), _folder(tmp_path, "plain"))
    assert plain
    for kind, key, value in EVERY:
        content = _one_row(shape)
        if key in _first(content):
            continue
        _first(content)[key] = value
        rows, bad = _run(shape, content, _folder(tmp_path, key))
        if not rows:
            assert bad and bad[0]["reason"], key
            continue
        assert _read(kind, key, value, rows[0]) or key in READ.get(shape.format, set()), (key, rows[0])


def _read(kind: str, key: str, value: Any, row: dict[str, Any]) -> bool:
    """Whether the row says what the key says."""
    turns = row.get("messages") or row["prompt"]
    if kind == "system":
        return turns[0] == {"role": "system", "content": value}
    if kind == "reasoning":
        return value in row["meta"]["reasoning"]
    if kind == "worse answer":
        said = "Something else." if key != "rejected_images" else None
        return row.get("rejected_images") == value if said is None else row["rejected"][-1]["content"] == said
    if kind == "better answer":
        return row["chosen"][-1]["content"] == value
    if kind == "question":
        return key == "history" and turns[0] == {"role": "user", "content": "q"}
    return False


def _folder(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


TURN_KEYS: list[tuple[dict[str, Any], str]] = [
    ({"loss": 0.5}, "a weight of the loss that rows cannot hold"),
    ({"loss": "no"}, "a weight of the loss that rows cannot hold"),
    ({"loss": True, "train": False}, "a weight of the loss that rows cannot hold"),
    (
        {"train_detail": [{"begin_offset": 0, "end_offset": 1, "train": False}]},
        "a weight of the loss that rows cannot hold",
    ),
    ({"tool_calls": [{"id": "1"}]}, "the row calls tools"),
    ({"function_call": {"name": "f"}}, "the row calls tools"),
    ({"audio": {"id": "1"}}, "the row has sound"),
    ({"video": "v.mp4"}, "the row is on a video"),
    ({"bbox": [1, 2, 3, 4]}, "the row has boxes or points"),
    ({"rejected": "C"}, "a worse answer that this format does not read"),
    ({"loss": False}, ""),
    ({"train": False}, ""),
    ({"weight": 0}, ""),
    ({"reasoning_content": "Hm."}, ""),
    ({"thinking": "Hm."}, ""),
]


@pytest.mark.parametrize(("more", "reason"), TURN_KEYS, ids=str)
@pytest.mark.parametrize("name", ["rows", "sharegpt", "ms_swift", "llava"])
def test_a_turns_key_is_read_or_its_row_refused(
    name: str, more: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    shape = next(shape for shape in ALL if shape.format == name)
    row = {"messages": [user("Q"), assistant("A", **more), user("R"), assistant("B")]}
    rows, bad = _run(shape, [row], _folder(tmp_path, "one"))
    assert [line["reason"] for line in bad] == ([reason] if reason else [])
    if not reason and "Hm." in more.values():
        assert rows[0]["meta"]["reasoning"] == [None, "Hm.", None, None]
    elif not reason:
        assert [turn.get("loss", True) for turn in rows[0]["messages"]] == [True, False, True, True]


MARKED: list[tuple[str, list[str], str]] = [
    ("<image>Q", [], "a marker without a picture"),
    ("<image>\n<image>\nQ", ["a.png"], "more image placeholders than images"),
    ("<image>Q", ["a.png", "b.png"], "fewer image placeholders than images"),
    ("<ImageHere>Q", [], "a marker without a picture"),
    ("<|vision_start|><|image_pad|><|vision_end|>Q", [], "a marker without a picture"),
    ("<image_1>Q", [], "a marker without a picture"),
    ("<|image_2|>Q <|image_1|>", ["a.png", "b.png"], "numbered images that do not stand in their order"),
    ("<video>Q", [], "the row is on a video"),
    ("<video>\nQ", ["a.png"], "the row is on a video"),
    ("<audio>Q", [], "the row has sound"),
    ("<bbox>Q", ["a.png"], "the row has boxes or points"),
    ("<img>gone.png</img>Q", [], "missing image"),
    ("<img>a.png</img>Q", ["a.png"], "pictures both in the turns and beside them"),
    ("<image>", ["a.png"], "a turn is empty"),
    ("<image>Q", ["a.png"], ""),
    ("Q", ["a.png", "b.png"], ""),
    ("<ImageHere><ImageHere>Q", ["a.png", "b.png"], ""),
    ("<img>a.png</img>Q", [], ""),
    ("<|image_1|>\n<|image_2|>\nQ", ["a.png", "b.png"], ""),
    ("<|vision_start|><|image_pad|><|vision_end|>Q", ["a.png"], ""),
]


@pytest.mark.parametrize(("words", "images", "reason"), MARKED)
@pytest.mark.parametrize("name", ["rows", "sharegpt", "llava", "ms_swift"])
def test_as_many_markers_as_pictures(
    name: str, words: str, images: list[str], reason: str, tmp_path: Path
) -> None:
    shape = next(shape for shape in ALL if shape.format == name)
    row = {"conversations": [human(words), gpt("A")], "images": images}
    rows, bad = _run(shape, [row], _folder(tmp_path, "one"))
    assert [line["reason"] for line in bad] == ([reason] if reason else [])
    if not reason:
        assert rows[0]["messages"][0] == {"role": "user", "content": "Q"}
        assert rows[0]["images"] == (images or ["a.png"])


def test_markers_in_typed_text_are_markers(tmp_path: Path) -> None:
    """A list of one text part is that text; beside an image part the marker is one too many."""
    shape = next(shape for shape in ALL if shape.format == "rows")
    part, image = {"type": "text", "text": "<image>\nQ"}, {"type": "image"}
    turns = [user([part]), user([image, part])]
    rows = [{"images": ["a.png"], "messages": [turn, assistant("A")]} for turn in turns]
    kept, bad = _run(shape, rows, _folder(tmp_path, "one"))
    assert [row["messages"][0]["content"] for row in kept] == ["Q"]
    assert [line["reason"] for line in bad] == ["not as many image parts as images"]


TEXT, IMAGE = {"type": "text"}, {"type": "image"}


@pytest.mark.parametrize(
    ("turns", "contents"),
    [
        (
            ["Is <image> older than <image>?"],
            [[TEXT | {"text": "Is "}, IMAGE, TEXT | {"text": " older than "}, IMAGE, TEXT | {"text": "?"}]],
        ),
        (
            ["<image>\nOne?", "<image>\nTwo?"],
            [[IMAGE, TEXT | {"text": "One?"}], [IMAGE, TEXT | {"text": "Two?"}]],
        ),
        (["One?", "<image><image>Two?"], ["One?", [IMAGE, IMAGE, TEXT | {"text": "Two?"}]]),
        (["<image>\nOne?\n<image>"], [[IMAGE, TEXT | {"text": "One?\n"}, IMAGE]]),
        (["<image>\n<image>\nOne?"], ["One?"]),
    ],
)
def test_pictures_stand_where_they_are_marked(turns: list[str], contents: list[Any], tmp_path: Path) -> None:
    shape = next(shape for shape in ALL if shape.format == "sharegpt")
    talk = [turn for words in turns for turn in (human(words), gpt("A"))]
    rows, _ = _run(shape, [{"conversations": talk, "images": ["a.png", "b.png"]}], _folder(tmp_path, "one"))
    assert [turn["content"] for turn in rows[0]["messages"][::2]] == contents
