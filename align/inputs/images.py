"""Images from disk or from bytes, decoded to exactly the pixels that the server sees.

vLLM turns an image by its EXIF orientation and lays transparency over white
(vllm/multimodal/media/image.py); training does the same here, or the two would see different pictures.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import zlib
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from align.digest import digest_file
from align.errors import AlignError

# Raster formats decoded in this process; EPS and the like would start other programs on untrusted input.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_MIME = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"BM": "image/bmp"}
_ADDRESS = re.compile(r"data:|[a-zA-Z][a-zA-Z0-9+.-]+://")
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_MOST_CHUNKS = 100_000
# What Pillow's plugins raise on damaged data.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def resolve_image(root: Path, relative: str) -> Path:
    """The file of a row's image, with symbolic links resolved.

    Args:
        relative: a path below `root`; an absolute one may lead there too.

    Raises:
        AlignError: a path that leaves `root`, no path at all, or a missing file.
    """
    if address := _ADDRESS.match(relative):
        kind = "the picture itself" if address[0] == "data:" else "a web address"
        raise AlignError(
            f"{kind}, not a file: {relative[:60]!r}",
            where=str(root),
            fix="`align import` stores pictures inside rows as files; fetch those at web addresses yourself",
        )
    base = os.path.realpath(root)
    path = os.path.realpath(os.path.join(base, relative))
    if not f"{path}/".startswith(base.rstrip("/") + "/"):
        raise AlignError(
            f"image path leaves the image root: {relative!r}",
            where=str(root),
            fix="name a folder that holds all pictures as the image root, or import with `--strip`",
        )
    if not os.path.isfile(path):
        raise AlignError(
            f"missing image: {relative}",
            where=str(root),
            fix="check the folder that images are relative to, and the row's `images`",
        )
    return Path(path)


def image_file(root: Path | None, name: str) -> Path:
    """The file of a row's image.

    Raises:
        AlignError: no `image_root`, or none of that name in it.
    """
    if root is None:
        raise AlignError(f"no data.image_root for the image {name}")
    return resolve_image(root, name)


def open_image(source: Path | bytes, max_pixels: int = 50_000_000) -> Image.Image:
    """Decode an image to RGB: EXIF orientation applied, transparency over white, first frame only.

    The header's size is checked before anything is decoded.

    Raises:
        AlignError: missing, empty, truncated, not an image, more than `max_pixels` pixels, or grey values
        that
            8 bits do not hold.
    """
    where = str(source) if isinstance(source, Path) else f"{len(source)} bytes"
    try:
        with _open_header(source, where, max_pixels) as image:
            return _to_rgb(ImageOps.exif_transpose(image))
    except _DAMAGED as error:
        raise AlignError(f"truncated or damaged image: {error}", where=where) from error


def image_size(source: Path | bytes, max_pixels: int = 50_000_000) -> tuple[int, int]:
    """(height, width) in pixels as `open_image` would give them, from the header alone.

    Raises:
        AlignError: missing, empty, not an image, more than `max_pixels` pixels, or grey values that 8 bits do
            not hold (only such a picture is decoded).
    """
    where = str(source) if isinstance(source, Path) else f"{len(source)} bytes"
    try:
        with _open_header(source, where, max_pixels) as image:
            # Pillow gives a TIFF's size as it will be shown
            turned = image.format != "TIFF" and _exif(image).get(0x0112, 1) in (5, 6, 7, 8)
            return (image.width, image.height) if turned else (image.height, image.width)
    except _DAMAGED as error:
        raise AlignError(f"truncated or damaged image: {error}", where=where) from error


def image_sha256(path: Path) -> str:
    """sha256 of the file's bytes, the image's identity everywhere in the project."""
    return digest_file(path)


def mime_type(data: bytes) -> str:
    """The media type by the first bytes; `image/webp` for what is left of the supported formats."""
    for magic, mime in _MIME.items():
        if data.startswith(magic):
            return mime
    return "image/tiff" if data[:4] in (b"II*\0", b"MM\0*") else "image/webp"


def _open_header(source: Path | bytes, where: str, max_pixels: int) -> Image.Image:
    if (len(source) if isinstance(source, bytes) else _file_size(source)) == 0:
        raise AlignError("empty image file", where=where)
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise AlignError(f"image too large: {error}", where=where) from error
    except UnidentifiedImageError as error:
        formats = ", ".join(_FORMATS)
        raise AlignError("not an image", where=where, fix=f"supported formats: {formats}") from error
    if image.width * image.height > max_pixels:
        size = f"{image.width}x{image.height}"
        image.close()
        raise AlignError(
            f"image too large: {size} pixels, more than {max_pixels}", where=where, fix="scale it down"
        )
    if image.mode in _DEEP:
        _check_range(image, where)
    return image


def _check_range(image: Image.Image, where: str) -> None:
    """Refuse a grey picture of 16 or 32 bits whose values 8 bits do not hold.

    Pillow cuts such values off, here and in the server, which gets the file as it is: all white, or all
    black.
    """
    low, high = image.getextrema()
    fraction = image.mode == "F" and 0 < high <= 1  # type: ignore[operator]
    if not 0 <= low <= high <= 255 or fraction:  # type: ignore[operator]
        image.close()
        raise AlignError(
            f"a grey picture with values from {low} to {high}, which 8 bits do not hold",
            where=where,
            fix="save it with 8 bits, its values scaled to 0 to 255",
        )


def _file_size(path: Path) -> int:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        found = None
    if found is None or not stat.S_ISREG(found.st_mode):
        raise AlignError("missing image", where=str(path))
    return found.st_size


def _exif(image: Image.Image) -> Image.Exif:
    """The picture's EXIF. Pillow decodes a PNG whole to find what may stand behind its pixels; here that
    happens only to one that has something there."""
    if image.format == "PNG" and not _has_late_chunks(vars(image)["fp"]):
        return Image.Image.getexif(image)
    return image.getexif()


def _has_late_chunks(file: Any) -> bool:
    """Whether EXIF or text stands behind a PNG's pixels, by the names of its chunks."""
    file.seek(8)
    pixels = False
    for _ in range(_MOST_CHUNKS):
        head = file.read(8)
        name = head[4:]
        if len(head) < 8 or name == b"IEND":
            return False
        if pixels and name in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
            return True
        pixels = pixels or name == b"IDAT"
        file.seek(int.from_bytes(head[:4]) + 4, 1)
    return True


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", rgba.size, (255, 255, 255))
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB") if image.mode != "RGB" else image.copy()
