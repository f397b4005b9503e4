"""What a benchmark's pictures and texts look like, without them: a list of hashes that may be shared.

A Parquet file, a row a picture (name, sha256 of its bytes, sha256 of its pixels, 256-bit hashes of it and of
its windows, and 128 x 128 signs of where it is bright and dark) or a text (name and 64-bit hashes of its
three-word shingles). No text can be made from it, and of a picture a rough outline without tones.
"""

from __future__ import annotations

import hashlib
import json
import os
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
from data_tools.decontaminate.hash_store import HashStore
from data_tools.decontaminate.perceptual import (
    ANGLES,
    BITS,
    WHOLE,
    Hash,
    box_hash,
    cells,
    grey_thumbnail,
    is_plain,
    rotated,
    turned_hashes,
    window_hashes,
    windows,
)
from data_tools.decontaminate.shingles import shingle_hashes
from data_tools.decontaminate.sketch import BYTES, sketch

VERSION = "align hash list 2"
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
_AT_ONCE = 64


@dataclass(frozen=True)
class ImageRecord:
    """A picture by its hashes.

    Attributes:
        sha256: of the file's bytes.
        pixels: sha256 of size and RGB pixels, the same for every lossless encoding.
        windows: hashes of it and its windows, [num_windows, 4]; [0, 4] for a picture without contrast, which
            can only be compared exactly.
        queries: what is looked up (`query_hashes`), [num_queries, 4]; a benchmark's pictures have none.
        sketch: see `sketch.sketch`, [2048].
    """

    name: str
    sha256: str
    pixels: str
    windows: Hash
    queries: Hash
    sketch: NDArray[np.uint8]


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
        """Write the list; what is looked up of turned pictures is made of what is compared with it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows: list[dict[str, Any]] = [
            {
                "kind": "image",
                "name": image.name,
                "sha256": image.sha256,
                "pixels": image.pixels,
                "hashes": image.windows.tobytes(),
                "sketch": image.sketch.tobytes(),
            }
            for image in self.images
        ]
        rows += [
            {
                "kind": "text",
                "name": text.name,
                "sha256": "",
                "pixels": "",
                "hashes": text.shingles.tobytes(),
                "sketch": b"",
            }
            for text in self.texts
        ]
        names = [pa.field(name, pa.string()) for name in ("kind", "name", "sha256", "pixels")]
        blobs = [pa.field(name, pa.binary()) for name in ("hashes", "sketch")]
        schema = pa.schema([*names, *blobs], metadata={"version": VERSION})
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
                hashes, signs = values.reshape(-1, BITS // 64), np.frombuffer(row["sketch"], dtype=np.uint8)
                if len(hashes) not in (0, len(windows())) or len(signs) != BYTES * (len(hashes) > 0):
                    raise ValueError(f"the hashes of {row['name']} are not whole")
                plain = (row["name"], row["sha256"], row["pixels"])
                found.images.append(ImageRecord(*plain, hashes, _NONE, signs))
        return found


def load_reference(path: Path, text_fields: Sequence[str], store: HashStore) -> HashList:
    """A hash list from what a user names: such a list, a folder of pictures, or a file of rows.

    Rows may have texts, and in Parquet pictures too (columns of bytes, or of `{"bytes", "path"}`).

    Raises:
        AlignError: neither of these, or nothing in it.
    """
    if path.is_dir():
        found = _of_folder(path, text_fields, store)
    elif path.suffix == ".parquet":
        found = HashList.read(path) if is_hash_list(path) else of_parquet(path, text_fields)
    elif path.suffix in (".json", ".jsonl"):
        found = HashList(texts=list(_texts(path, text_fields)))
    else:
        fix = "name a folder of pictures, a hash list or rows (.parquet), or rows with texts (.json, .jsonl)"
        raise AlignError(f"cannot compare with {path}", where="against", fix=fix)
    if not found.images and not found.texts:
        fields = ", ".join(text_fields)
        what = "pictures" if path.is_dir() else f"pictures, and no texts in the fields {fields},"
        raise AlignError(f"no {what} in {path}", where="against", fix="check the path, or set text_fields")
    return found


def _of_folder(path: Path, text_fields: Sequence[str], store: HashStore) -> HashList:
    """Its pictures, and the rows of the Parquet files in it: shards of a benchmark."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    names = [str(file.relative_to(path)) for file in files if file.suffix.lower() in _SUFFIXES]
    found = HashList()
    for name, record, fault in image_records(path, names, store):
        if record is None:
            say(f"  left out: {name}: {fault}")
        else:
            found.images.append(record)
    for file in files:
        if file.suffix == ".parquet":
            part = HashList.read(file) if is_hash_list(file) else of_parquet(file, text_fields)
            found.images += part.images
            found.texts += part.texts
    return found


def is_hash_list(path: Path) -> bool:
    """Whether a Parquet file says that it is a hash list, of whatever version.

    Raises:
        AlignError: no Parquet.
    """
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        metadata = pq.read_schema(path).metadata or {}
    except (ArrowException, OSError) as error:
        raise AlignError(f"not a hash list, and no Parquet: {error}", where=str(path)) from error
    return metadata.get(b"version", b"").startswith(b"align hash list")


def of_parquet(path: Path, text_fields: Sequence[str]) -> HashList:
    """A benchmark's Parquet file, read in batches: every picture, and the texts of these fields.

    Raises:
        AlignError: no Parquet.
    """
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    found, number = HashList(), 0
    try:
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        bar = Bar(f"hashing {path.name}", file.metadata.num_rows, "rows")
        with bar, ThreadPoolExecutor(_cores()) as pool:
            for batch in file.iter_batches(batch_size=_AT_ONCE):
                rows = batch.to_pylist()
                pictures = [
                    (f"{path.name}:{number + place} {name}", data)
                    for place, row in enumerate(rows)
                    for name, value in row.items()
                    for data in _picture_bytes(value)
                ]
                for record in pool.map(_record_of_bytes, pictures):
                    if record is not None:
                        found.images.append(record)
                for place, row in enumerate(rows):
                    found.texts += _row_texts(row, text_fields, f"{path.name}:{number + place}")
                number += len(rows)
                bar.step(len(rows))
    except (ArrowException, OSError) as error:
        raise AlignError(f"not a readable Parquet file: {error}", where=str(path)) from error
    return found


def _picture_bytes(value: Any) -> Iterator[bytes]:
    """The pictures in a value of a column: bytes, `{"bytes": ...}`, or lists of these."""
    if isinstance(value, dict):
        value = value.get("bytes")
    if isinstance(value, bytes) and value:
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _picture_bytes(part)


def _record_of_bytes(named: tuple[str, bytes]) -> ImageRecord | None:
    name, data = named
    try:
        image = open_image(data)
    except AlignError:
        return None
    return _record_of(name, hashlib.sha256(data).hexdigest(), image, queries=False)


def image_records(
    root: Path, names: Sequence[str], store: HashStore
) -> Iterator[tuple[str, ImageRecord | None, str]]:
    """Name, record, and the fault where there is none, for each picture, in order; every core does the work.

    What the store holds of a picture's bytes is taken from there.
    """
    with Bar("hashing", len(names), "images") as bar, ThreadPoolExecutor(_cores()) as pool:
        for start in range(0, len(names), _AT_ONCE):
            chunk = names[start : start + _AT_ONCE]
            for name, (record, fault) in zip(
                chunk, pool.map(lambda name: _record(root, name, store), chunk), strict=True
            ):
                yield name, record, fault
                bar.step()
            store.flush()


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _record(root: Path, name: str, store: HashStore) -> tuple[ImageRecord | None, str]:
    try:
        path = resolve_image(root, name)
        digest = digest_file(path)
        if (known := store.get(digest)) is not None:
            return _unpacked(name, digest, known), ""
        record = _record_of(name, digest, open_image(path), queries=True)
    except AlignError as error:
        return None, error.what
    store.put(digest, _packed(record))
    return record, ""


def _record_of(name: str, digest: str, image: Image.Image, queries: bool) -> ImageRecord:
    pixels = _pixel_digest(image)
    if is_plain(image):
        return ImageRecord(name, digest, pixels, _NONE, _NONE, np.zeros(0, dtype=np.uint8))
    thumbnail = grey_thumbnail(image)
    looked_up = query_hashes(thumbnail) if queries else _NONE
    return ImageRecord(name, digest, pixels, window_hashes(thumbnail), looked_up, sketch(thumbnail))


def query_hashes(thumbnail: NDArray[np.float32]) -> Hash:
    """What is looked up of a picture: turned and inverted, rotated by a few degrees, the parts of a
    collage."""
    parts = [box_hash(rotated(thumbnail, angle), WHOLE) for angle in ANGLES]
    parts += [box_hash(thumbnail, cell) for cell in cells()]
    return np.concatenate([turned_hashes(thumbnail), np.stack(parts)])


_NONE: Hash = np.zeros((0, BITS // 64), dtype=np.uint64)


def _packed(record: ImageRecord) -> bytes:
    return b"".join(
        [
            bytes.fromhex(record.pixels),
            record.sketch.tobytes(),
            record.windows.tobytes(),
            record.queries.tobytes(),
        ]
    )


def _unpacked(name: str, digest: str, data: bytes) -> ImageRecord:
    pixels = data[:32].hex()
    if len(data) == 32:
        return ImageRecord(name, digest, pixels, _NONE, _NONE, np.zeros(0, dtype=np.uint8))
    signs = np.frombuffer(data[32 : 32 + BYTES], dtype=np.uint8)
    hashes = np.frombuffer(data[32 + BYTES :], dtype=np.uint64).reshape(-1, BITS // 64)
    count = len(windows())
    return ImageRecord(name, digest, pixels, hashes[:count], hashes[count:], signs)


def _pixel_digest(image: Image.Image) -> str:
    digest = hashlib.sha256(f"{image.width}x{image.height} ".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def _texts(path: Path, fields: Sequence[str]) -> Iterator[TextRecord]:
    for number, row in enumerate(_rows(path)):
        yield from _row_texts(row, fields, f"{path.name}:{number}")


def _row_texts(row: dict[str, Any], fields: Sequence[str], where: str) -> Iterator[TextRecord]:
    for name in fields:
        if isinstance(row.get(name), str) and row[name].strip():
            yield TextRecord(f"{where} {name}", shingle_hashes(row[name]))


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
