"""Whatever a file holds: no crash, no hang, no read outside the root, and no row lost without a reason.

`FUZZ_EXAMPLES=5000 pytest tests/data_tools/importers/test_fuzz.py` searches longer, from another
seed each time.
"""

from __future__ import annotations

import copy
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from align.errors import AlignError
from align.inputs.images import image_size, open_image
from align.rows.schema import PreferenceRow, SFTRow, check_row
from data_tools.importers.convert import Job, convert, import_rows
from data_tools.importers.formats import FORMATS
from data_tools.importers.items import Item
from data_tools.importers.pictures import Pictures
from data_tools.importers.published import Options
from data_tools.importers.unusable import Unusable
from tests.data_tools.importers.meanings import MEANING
from tests.data_tools.importers.shapes import BLUE, RED, Shape
from tests.data_tools.importers.tool_shapes import ALL

LONG = "FUZZ_EXAMPLES" in os.environ
FUZZ = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "30")),
    derandomize=not LONG,
    deadline=None,
    database=None,
    suppress_health_check=(HealthCheck.function_scoped_fixture, HealthCheck.too_slow),
)
CPU_SECONDS = 5.0
META = {"internvl_meta": "source.json", "dataset_info": "source.json"}
"""Formats whose file names other files, and what their errors name."""

NASTY = st.sampled_from(
    [
        "<image>",
        "<image>\n<image>",
        "a <image> b",
        "<|image_pad|>",
        "../secret.png",
        "/etc/passwd",
        "link.png",
        "a.png",
        "sub/../a.png",
        "a\0.png",
        "\ud800",
        "<video>",
        "<audio>",
        "<img>a.png</img>",
        "<ImageHere>",
        "data:image/png;base64,AAAA",
        "https://example.org/a.png",
        "file:///etc/passwd",
        "[1, 2",
        "\u2028",
        "USER: x ASSISTANT:",
        "x" * 300,
        "",
        "NaN",
        "1e999",
    ]
)
TEXTS = NASTY | st.text(max_size=12)
SCALARS = TEXTS | st.none() | st.booleans() | st.integers() | st.floats()
KEYS = [key for keys in MEANING.values() for key in keys]
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Paths opened during the test; an audit hook sees every `open`, Pillow's too."""
    _opened.clear()
    yield _opened
    _opened.clear()


_opened: list[str] = []
sys.addaudithook(lambda event, args: _opened.append(str(args[0])) if event == "open" else None)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside a JSON value, as keys from the outside in."""
    found = [path] if path else []
    if isinstance(value, dict):
        inner = list(value.items())
    else:
        inner = list(enumerate(value)) if isinstance(value, list) else []
    for key, part in inner:
        found += places(part, (*path, key))
    return found


@st.composite
def spoilt(draw: st.DrawFn, shape: Shape) -> Any:
    """The shape's published file with some of its parts replaced, removed or repeated."""
    content = copy.deepcopy(shape.content)
    for _ in range(draw(st.integers(0, 4))):
        *way, last = draw(st.sampled_from(places(content)))
        parent: Any = content
        for key in way:
            parent = parent[key]
        change = draw(st.sampled_from(["replace", "remove", "repeat", "add"]))
        if change == "replace":
            parent[last] = draw(VALUES)
        elif change == "remove":
            del parent[last]
        elif change == "add" and isinstance(parent, dict):
            parent[draw(st.sampled_from(KEYS))] = draw(VALUES)
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(parent[last]))
        if not places(content):
            break
    return content


def jsonable(value: Any) -> Any:
    """JSON files hold no bytes: a picture's become its file."""
    if isinstance(value, dict):
        return {key: jsonable(part) for key, part in value.items()}
    if isinstance(value, list):
        return [jsonable(part) for part in value]
    return "a.png" if isinstance(value, bytes) else value


def number_of_rows(shape: Shape, content: Any) -> int | None:
    """How many rows a file holds, counted without the importer; None when its form leaves that open."""
    if FORMATS[shape.format].join:
        section = content.get({"vqav2": "questions"}.get(shape.format, "annotations"))
        return len(section) if isinstance(section, list) else None
    if shape.format in META:
        return None  # the rows are those of other files
    if isinstance(content, list) and content and isinstance(content[0], list):
        return None  # written as lines, the first of them is a whole JSON list
    return len(content)


@pytest.mark.parametrize("shape", ALL, ids=lambda shape: shape.format)
@FUZZ
@given(data=st.data())
def test_every_row_is_kept_or_has_a_reason(
    shape: Shape, data: st.DataObject, tmp_path: Path, watched: list[str]
) -> None:
    folder, root = _fresh(tmp_path), tmp_path / "case" / "root"
    (folder / "secret.png").write_bytes(BLUE)
    root.mkdir()
    os.symlink(folder / "secret.png", root / "link.png")
    content = jsonable(data.draw(spoilt(shape)))
    Shape.write(Shape(shape.format, "unused.json", [], [], None, [], others=shape.others), root)
    source = folder / "source.json"
    lines = isinstance(content, list) and data.draw(st.booleans())
    written = "\n".join(map(json.dumps, content)) if lines else json.dumps(content)
    indent = draw_from(data, [None, None, None, 1])
    if indent and not lines:
        written = json.dumps(content, indent=indent)
    source.write_bytes(
        written.encode(draw_from(data, ["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le"]))
    )
    options = Options(max_pairs=2, annotations=root / "answers.json")
    out = folder / data.draw(st.sampled_from(["out.jsonl", "out.parquet"]))
    job = Job(FORMATS[shape.format], str(source), out, Pictures(root), options)
    expected = number_of_rows(shape, content)
    started = time.process_time()
    watched.clear()
    try:
        tally = import_rows(job).tally
    except AlignError as error:
        # a file without usable rows is an error too; a meta file must name files that are there
        told = ("no row could be used", "not whole JSON", "nothing in a list", "no text in utf-16")
        assert error.what.startswith(told) or META.get(shape.format, "-") in str(error)
        if error.what.startswith("no row") and expected:
            assert job.quarantine_path.read_text().count("\n") == expected
    else:
        dropped = job.quarantine_path.read_text().splitlines() if job.quarantine_path.exists() else []
        assert tally.dropped.total() == len(dropped) and all(json.loads(line)["reason"] for line in dropped)
        assert expected is None or tally.kept + tally.dropped.total() == expected
        _check_output(out, root)
    assert time.process_time() - started < CPU_SECONDS
    assert not [path for path in watched if path.endswith(("secret.png", "link.png", "passwd"))]


def _rows_of(shape: Shape) -> list[Any]:
    """The shape's rows as their source gives them to a format."""
    content = jsonable(copy.deepcopy(shape.content))
    if isinstance(content, list):
        return content
    if shape.format in META:
        return [{"image": "a.png", "conversations": [{"from": "human", "value": "<image>Q"}]}]
    if FORMATS[shape.format].join:
        rows = next(part for name, part in content.items() if name in ("annotations", "questions"))
        return [row | {"file_name": "a.png", "answer": "yes", "data_subtype": "val2014"} for row in rows]
    return [
        {"key": key, **value} if isinstance(value, dict) else {"key": key, "items": value}
        for key, value in content.items()
    ]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    root = tmp_path_factory.mktemp("pictures")
    (root / "a.png").write_bytes(RED)
    (root / "b.png").write_bytes(BLUE)
    return Pictures(root)


@pytest.mark.parametrize("shape", ALL, ids=lambda shape: shape.format)
@FUZZ
@given(data=st.data())
def test_any_row_is_converted_or_refused(shape: Shape, data: st.DataObject, pictures: Pictures) -> None:
    """The same rows without their files, which is what costs time: `FUZZ_EXAMPLES=10000`."""
    rows = data.draw(spoilt(Shape(shape.format, "", _rows_of(shape), [], None, [])))
    job = Job(FORMATS[shape.format], "source", Path("out.jsonl"), pictures, Options(max_pairs=2))
    for number, row in enumerate(rows):
        try:
            made, notes = convert(job, number, Item("source", row))
        except Unusable as fault:
            assert fault.reason and len(fault.reason) < 100
            continue
        assert made and all(notes)
        for one in made:
            check_row(type(one), json.loads(one.model_dump_json()), "output")


def draw_from(data: st.DataObject, options: list[Any]) -> Any:
    """One of these."""
    return data.draw(st.sampled_from(options))


def _fresh(tmp_path: Path) -> Path:
    """An empty folder for one example; the fixture's folder is shared by all of them."""
    folder = tmp_path / "case"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _check_output(out: Path, root: Path) -> None:
    import pyarrow.parquet as pq

    if out.suffix == ".parquet":
        rows = [row | {"meta": json.loads(row["meta"])} for row in pq.read_table(out).to_pylist()]
    else:
        rows = [json.loads(line) for line in out.read_text().split("\n") if line]
    assert rows
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        check_row(SFTRow if "messages" in row else PreferenceRow, row, "output")
        for name in row["images"]:
            assert (root / name).resolve().is_relative_to(root) and image_size(root / name)


def _encoded(kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture = Image.new("RGB", (9, 5), (200, 40, 90))
    (picture.convert("P") if kind == "GIF" else picture).save(out, kind, **options)
    return out.getvalue()


ORIENTED = Image.Exif()
ORIENTED[0x0112] = 6
FILES = [
    RED,
    _encoded("JPEG", exif=ORIENTED),
    _encoded("WEBP", exif=ORIENTED),
    _encoded("BMP"),
    _encoded("GIF"),
    _encoded("TIFF"),
    _encoded("TIFF", compression="tiff_lzw"),
    _encoded("PPM"),
    b"P5 99999 99999 255\n",
    b"",
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A picture file with bytes overwritten, cut off or put in."""
    data = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        new = draw(st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"]) | st.binary(max_size=8))
        kind = draw(st.sampled_from(["overwrite", "overwrite", "insert", "cut"]))
        if kind == "overwrite":
            data[place : place + len(new)] = new
        elif kind == "insert":
            data[place:place] = new
        else:
            del data[place:]
    return bytes(data)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(FUZZ, max_examples=FUZZ.max_examples * 10)
@given(data=damaged())
def test_any_bytes_are_a_picture_or_an_error(data: bytes) -> None:
    started = time.process_time()
    try:
        height, width = image_size(data, max_pixels=10_000)
        assert 0 < height * width <= 10_000
        assert open_image(data, max_pixels=10_000).size == (width, height)
    except AlignError:
        pass
    assert time.process_time() - started < CPU_SECONDS
