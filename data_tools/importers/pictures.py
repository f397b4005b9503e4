"""A published row's pictures: found under one root and checked by their header, or brought there.

Datasets name pictures by paths or hold their bytes. Paths never lead outside the root (`..`, absolute paths,
symbolic links); bytes become files named by their sha256, so that the same picture is stored once. Nothing is
decoded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.errors import AlignError
from align.inputs.images import image_size, mime_type, resolve_image
from data_tools.importers.unusable import Unusable

_SUFFIXES = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/gif": ".gif",
    "image/bmp": ".bmp",
    "image/tiff": ".tif",
    "image/webp": ".webp",
}
STORED = "imported"
"""Folder under the root for pictures that a dataset holds as bytes."""
_REMEMBERED = 50_000  # checked paths; rows of one picture stand near each other


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

        A picture is a path, bytes, or the hub's `{"bytes": ..., "path": ...}`.

        Raises:
            Unusable: one that is missing, outside the root, damaged, too large, or no picture at all.
        """
        if value is None or value == "":
            return []
        return [self._one(part) for part in value] if isinstance(value, list) else [self._one(value)]

    def base64(self, value: Any) -> list[str]:
        """Like `of`, for text that encodes the bytes."""
        texts = value if isinstance(value, list) else [value] if value else []
        found = []
        for text in texts:
            try:
                found.append(self._store(base64.b64decode(text, validate=True)))
            except (binascii.Error, ValueError, TypeError) as error:
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
        if isinstance(value, dict) and (value.get("bytes") or value.get("path")):
            value = value.get("bytes") or value["path"]
        if isinstance(value, bytes):
            return self._store(value)
        if isinstance(value, str):
            return self._find(value)
        raise Unusable("image is neither a path nor bytes", type(value).__name__)

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
            path = resolve_image(self.root, relative)
            image_size(path, self.max_pixels)
            found = path.relative_to(self.root.resolve()).as_posix()
            found.encode("utf-8")
        except AlignError as error:
            return Unusable(error.what.split(":")[0], relative)
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
