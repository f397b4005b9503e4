"""What a benchmark's pictures and texts look like, without them: a list of hashes that may be shared.

A Parquet file, a row a picture (name, sha256 of its bytes, sha256 of its pixels, 256-bit hashes of it and of
its windows) or a text (name and 64-bit hashes of its three-word shingles). No picture and no text can be made
from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from align.digest import digest_file
from align.errors import AlignError
from align.inputs.images import open_image, resolve_image
from align.progress import Bar, say
from data_tools.decontaminate.perceptual import BITS, Hash, is_plain, window_hashes
from data_tools.decontaminate.shingles import shingle_hashes

VERSION = "align hash list 1"
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
_AT_ONCE = 64


@dataclass(frozen=True)
class ImageRecord:
    """A picture by its hashes.

    Attributes:
        sha256: of the file's bytes.
        pixels: sha256 of size and RGB pixels, the same for every lossless encoding.
        hashes: of its windows and their mirror images, [num_windows, 4, 4] (see `window_hashes`); [0, 4, 4]
            for a picture without contrast, which can only be compared exactly.
    """

    name: str
    sha256: str
    pixels: str
    hashes: Hash


@dataclass(frozen=True)
class TextRecord:
    """A text by the hashes of its shingles."""

    name: str
    shingles: NDArray[np.uint64]


@dataclass
class HashList:
    """Pictures and texts of one or several benchmarks."""

    images: list[ImageRecord] = field(default_factory=list)
    texts: list[TextRecord] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write the list, without the hashes of mirror images: those are made of what is compared with it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows: list[dict[str, Any]] = [
            {
                "kind": "image",
                "name": image.name,
                "sha256": image.sha256,
                "pixels": image.pixels,
                "hashes": np.ascontiguousarray(image.hashes[:, 0]).tobytes(),
            }
            for image in self.images
        ]
        rows += [
            {"kind": "text", "name": text.name, "sha256": "", "pixels": "", "hashes": text.shingles.tobytes()}
            for text in self.texts
        ]
        names = [pa.field(name, pa.string()) for name in ("kind", "name", "sha256", "pixels")]
        schema = pa.schema([*names, pa.field("hashes", pa.binary())], metadata={"version": VERSION})
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)

    @classmethod
    def read(cls, path: Path) -> HashList:
        """
        Raises:
            AlignError: not a hash list of this version.
        """
        import pyarrow.parquet as pq
        from pyarrow import ArrowException

        try:
            table = pq.read_table(path)
        except (ArrowException, OSError) as error:
            raise AlignError(f"not a hash list: {error}", where=str(path)) from error
        version = (table.schema.metadata or {}).get(b"version", b"").decode()
        if version != VERSION:
            what = f"not a hash list ({version or 'no version in the file'})"
            fix = "make it again: align decontaminate --against FOLDER --write_hashes FILE"
            raise AlignError(what, where=str(path), fix=fix)
        try:
            return cls._of_rows(table.to_pylist())
        except (ValueError, LookupError, TypeError) as error:
            raise AlignError(f"a damaged hash list: {error}", where=str(path)) from error

    @classmethod
    def _of_rows(cls, rows: list[dict[str, Any]]) -> HashList:
        found = cls()
        for row in rows:
            values = np.frombuffer(row["hashes"], dtype=np.uint64)
            if row["kind"] == "text":
                found.texts.append(TextRecord(row["name"], values))
            else:
                hashes = values.reshape(-1, 1, BITS // 64)
                found.images.append(ImageRecord(row["name"], row["sha256"], row["pixels"], hashes))
        return found


def load_reference(path: Path, text_fields: Sequence[str]) -> HashList:
    """A hash list from what a user names: such a list, a folder of pictures, or a file of rows with texts.

    Raises:
        AlignError: neither of these, or nothing in it.
    """
    if path.is_dir():
        names = sorted(
            str(file.relative_to(path)) for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES
        )
        found = HashList()
        for name, record, fault in image_records(path, names):
            if record is None:
                say(f"  left out: {name}: {fault}")
            else:
                found.images.append(record)
    elif path.suffix == ".parquet":
        found = HashList.read(path)
    elif path.suffix in (".json", ".jsonl"):
        found = HashList(texts=list(_texts(path, text_fields)))
    else:
        fix = "name a folder of pictures, a hash list (.parquet), or rows with texts (.json, .jsonl)"
        raise AlignError(f"cannot compare with {path}", where="against", fix=fix)
    if not found.images and not found.texts:
        what = "pictures" if path.is_dir() else f"texts in the fields {', '.join(text_fields)}"
        raise AlignError(f"no {what} in {path}", where="against", fix="check the path")
    return found


def image_records(root: Path, names: Sequence[str]) -> Iterator[tuple[str, ImageRecord | None, str]]:
    """Name, record, and the fault where there is none, for each picture, in order; threads do the work."""
    with Bar("hashing", len(names), "images") as bar, ThreadPoolExecutor() as pool:
        for start in range(0, len(names), _AT_ONCE):
            chunk = names[start : start + _AT_ONCE]
            for name, (record, fault) in zip(chunk, pool.map(lambda n: _record(root, n), chunk), strict=True):
                yield name, record, fault
                bar.step()


def _record(root: Path, name: str) -> tuple[ImageRecord | None, str]:
    try:
        path = resolve_image(root, name)
        image = open_image(path)
    except AlignError as error:
        return None, error.what
    hashes = np.zeros((0, 4, BITS // 64), dtype=np.uint64) if is_plain(image) else window_hashes(image)
    return ImageRecord(name, digest_file(path), _pixel_digest(image), hashes), ""


def _pixel_digest(image: Image.Image) -> str:
    digest = hashlib.sha256(f"{image.width}x{image.height} ".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def _texts(path: Path, fields: Sequence[str]) -> Iterator[TextRecord]:
    for number, row in enumerate(_rows(path)):
        for name in fields:
            if isinstance(row.get(name), str) and row[name].strip():
                yield TextRecord(f"{path.name}:{number} {name}", shingle_hashes(row[name]))


def _rows(path: Path) -> list[dict[str, Any]]:
    """Dictionaries of a JSON list, of the lists inside a JSON object, or of JSON lines (POPE's too)."""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        tree = json.loads(text)
    except ValueError:
        try:
            tree = [json.loads(line) for line in text.split("\n") if line.strip()]
        except ValueError as error:
            raise AlignError(f"neither JSON nor JSON lines: {error}", where=str(path)) from error
    parts = tree.values() if isinstance(tree, dict) else [tree]
    return [row for part in parts if isinstance(part, list) for row in part if isinstance(row, dict)]
