"""A published row's pictures: found under one root and checked by their header, or brought there.

Datasets name pictures by paths or hold their bytes. Paths never lead outside the root (`..`, absolute paths,
symbolic links); bytes become files named by their sha256, so that the same picture is stored once. Nothing is
decoded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from align.errors import AlignError
from align.inputs.images import image_size, mime_type, resolve_image
from data_tools.importers.meaning import present
from data_tools.importers.unusable import Unusable

_SUFFIXES = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/gif": ".gif",
    "image/bmp": ".bmp",
    "image/tiff": ".tif",
    "image/webp": ".webp",
}
NOT_FOUND = ("missing image", "image path leaves the image root", "image path is no file name")
"""Reasons of rows whose pictures are not where they were looked for."""
STORED = "imported"
"""Folder under the root for pictures that a dataset holds as bytes."""
_REMEMBERED = 50_000  # checked paths; rows of one picture stand near each other


_HOLDS = ("bytes", "url", "image_url", "image", "data", "base64", "path", "file_name", "filename", "src")
_NESTED = 3  # {"image_url": {"url": ...}} and the like
_LONGEST_PATH = 512
_ENCODED = (
    "iVBOR",
    "/9j/",
    "R0lGOD",
    "UklGR",
    "Qk",
    "SUkq",
    "TU0A",
)  # how PNG, JPEG, GIF, WebP, BMP, TIFF begin


@dataclass
class Pictures:
    """Finds, checks and stores the pictures of rows.

    Attributes:
        root: folder that the written rows' image paths are relative to.
        strip: what to cut from the front of a published path, `data/coco/` say.
        prefix: what to put before the rest, to get a path under `root`.
        max_pixels: a picture with more is refused.
    """

    root: Path
    strip: str = ""
    prefix: str = ""
    max_pixels: int = 50_000_000
    _known: OrderedDict[str, str | Unusable] = field(default_factory=OrderedDict)

    def of(self, value: Any) -> list[str]:
        """Image paths of a field that holds nothing, one picture or a list of them.

        A picture is a path, bytes, the hub's `{"bytes": ..., "path": ...}`, a data URL, or OpenAI's
        `{"url": ...}`.

        Raises:
            Unusable: one that is missing, outside the root, damaged, too large, or no picture at all.
        """
        if isinstance(value, str) and value.lstrip().startswith("["):  # a list as a CSV file holds it
            value = _listed(value)
        if isinstance(value, list):
            return [self._one(part) for part in value if present(part)]
        return [self._one(value)] if present(value) or isinstance(value, dict) else []

    def base64(self, value: Any) -> list[str]:
        """Like `of`, for text that encodes the bytes."""
        texts = value if isinstance(value, list) else [value] if value else []
        found = []
        for text in texts:
            try:
                found.append(self._store(base64.b64decode("".join(text.split()), validate=True)))
            except (binascii.Error, ValueError, TypeError, AttributeError) as error:
                raise Unusable("image is not base64", str(error)) from error
        return found

    def first_of(self, names: Sequence[str]) -> str:
        """The first of these paths that is there.

        Raises:
            Unusable: none is.
        """
        faults = []
        for name in names:
            try:
                return self._find(name)
            except Unusable as fault:
                faults.append(fault)
        raise faults[0]

    def _one(self, value: Any) -> str:
        for _ in range(_NESTED):
            if not isinstance(value, dict):
                break
            named = next((value[name] for name in _HOLDS if present(value.get(name))), None)
            value = named if named is not None else value
        if isinstance(value, bytes):
            return self._store(value)
        if isinstance(value, str):
            return self._text(value.strip())
        raise Unusable("image is neither a path nor bytes", type(value).__name__)

    def _text(self, text: str) -> str:
        """A path, a web or data address, or bytes in base64."""
        if text[:5].lower() == "data:":
            head, comma, data = text.partition(",")
            if not comma or "base64" not in head:
                raise Unusable("a data address that is not base64", head[:100])
            return self.base64(data)[0]
        if text[:7].lower() == "file://":
            text = unquote(text[7:])
        elif found := re.match(r"([a-zA-Z][a-zA-Z0-9+.-]+)://", text):
            fix = "fetch the pictures, name their folder with --image_root, cut the address with --strip"
            raise Unusable("a picture at a web address", f"{found[0]}: {text[:150]}; {fix}")
        if len(text) > _LONGEST_PATH and text.startswith(_ENCODED):
            return self.base64(text)[0]
        return self._find(text)

    def _find(self, name: str) -> str:
        if name not in self._known:
            self._known[name] = self._look(name)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        found = self._known[name]
        if isinstance(found, Unusable):
            raise Unusable(found.reason, found.detail)
        return found

    def _look(self, name: str) -> str | Unusable:
        relative = self.prefix + name.removeprefix(self.strip)
        try:
            if os.path.isabs(relative):
                relative = _inside(self.root, relative)
            path = resolve_image(self.root, relative)
            image_size(path, self.max_pixels)
            found = path.relative_to(self.root.resolve()).as_posix()
            found.encode("utf-8")
        except AlignError as error:
            return Unusable(error.what.split(":")[0], _with_fix(error, relative, self.root))
        except (OSError, ValueError) as error:  # a name too long, with a null byte, or no Unicode
            return Unusable("image path is no file name", f"{relative[:200]!r}: {error}")
        return found

    def _store(self, data: bytes) -> str:
        try:
            image_size(data, self.max_pixels)
        except AlignError as error:
            raise Unusable(error.what.split(":")[0], f"{len(data)} bytes") from error
        digest = hashlib.sha256(data).hexdigest()
        relative = f"{STORED}/{digest[:2]}/{digest}{_SUFFIXES[mime_type(data)]}"
        path = self.root / relative
        if not path.is_file() or path.stat().st_size != len(data):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.{os.getpid()}")
            partial.write_bytes(data)
            partial.replace(path)
        return relative


def _inside(root: Path, path: str) -> str:
    """An absolute path as one below the root, where it lies there; else as it was."""
    base = os.path.realpath(root)
    for one in (os.path.normpath(path), os.path.realpath(path)):
        for start in (base, os.path.abspath(root)):
            if one.startswith(start.rstrip("/") + "/"):
                return os.path.relpath(one, start)
    return path


def _with_fix(error: AlignError, relative: str, root: Path) -> str:
    """What a person can do about a path that is not found below the root."""
    if error.what.startswith("image path leaves"):
        return f"{relative}; name its folder with --image_root, or cut the front of the path with --strip"
    if error.what.startswith("missing image"):
        return f"{relative}; looked for below {root} (--image_root, --strip, --prefix)"
    return relative


def _listed(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, list) else text
