"""Pictures stay under their root, are checked by their header, and are stored once."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import pytest

from data_tools.importers.pictures import Pictures
from data_tools.importers.unusable import Unusable
from tests.data_tools.importers.shapes import BLUE, RED


def refused(pictures: Pictures, value: object) -> str:
    with pytest.raises(Unusable) as caught:
        pictures.of(value)
    return caught.value.reason


@pytest.fixture
def root(tmp_path: Path) -> Path:
    inside = tmp_path / "root"
    (inside / "sub").mkdir(parents=True)
    (inside / "sub" / "a.png").write_bytes(RED)
    (tmp_path / "secret.png").write_bytes(BLUE)
    return inside


def test_paths_outside_the_root_are_refused(root: Path) -> None:
    secret = root.parent / "secret.png"
    os.symlink(secret, root / "link.png")
    os.symlink(root.parent, root / "up")
    pictures = Pictures(root)
    assert pictures.of("sub/../sub/a.png") == ["sub/a.png"]
    for name in ("../secret.png", str(secret), "link.png", "up/secret.png", "sub/../../secret.png"):
        assert refused(pictures, name) == "image path leaves the image root"
    for name in ("a\0b", "x" * 5000, "gone.png"):
        assert refused(pictures, name) in ("image path is no file name", "missing image")
    for value in (3, {"bytes": None, "path": None}, {"x": 1}):
        assert refused(pictures, value) == "image is neither a path nor bytes"


def test_a_fault_that_is_known_is_raised_without_growing(root: Path) -> None:
    pictures = Pictures(root)
    depths = []
    for _ in range(3):
        with pytest.raises(Unusable) as caught:
            pictures.of("gone.png")
        depths.append(len(caught.traceback))
    assert depths[0] == depths[-1]


def test_bytes_are_stored_once_by_their_content(root: Path) -> None:
    pictures = Pictures(root)
    first, second, third = (pictures.of({"bytes": data, "path": "x.jpg"})[0] for data in (RED, BLUE, RED))
    assert first == third != second
    assert (root / first).read_bytes() == RED
    assert first.startswith("imported/") and first.endswith(".png")
    assert len([path for path in (root / "imported").rglob("*") if path.is_file()]) == 2


def test_a_bomb_is_refused_by_its_header(root: Path) -> None:
    """60,000 x 60,000 pixels in a file of a few bytes."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    assert refused(Pictures(root), data) == "image too large"
    (root / "bomb.png").write_bytes(data)
    assert refused(Pictures(root), "bomb.png") == "image too large"
    assert not (root / "imported").exists()
    assert refused(Pictures(root, max_pixels=40), "sub/a.png") == "image too large"


def test_strip_and_prefix(root: Path) -> None:
    assert Pictures(root, strip="./data/", prefix="sub/").of(["./data/a.png"]) == ["sub/a.png"]
