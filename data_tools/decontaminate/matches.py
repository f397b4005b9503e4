"""Which benchmark picture another picture is: the same bytes, the same pixels, or the same to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.decontaminate.hash_list import ImageRecord
from data_tools.decontaminate.perceptual import (
    ANGLES,
    BITS,
    TURNS,
    WHOLE,
    cells,
    cut,
    rotated,
    turned,
    windows,
)
from data_tools.decontaminate.sketch import Likeness, likeness

MAX_BITS = 90
"""Of 256: pictures that are nearer are looked at closely (`sketch.likeness`). Strangers come as near as
50."""
SURE_BITS = 32
"""Photographs that are so near are the same even where their detail is the encoder's noise (sky, blur)."""
_MOST_CANDIDATES = 4
_NEIGHBOURS = 4
Thumbnail = NDArray[np.float32]


@dataclass(frozen=True)
class ImageMatch:
    """A match.

    Attributes:
        kind: `same bytes`, `same pixels` or `looks the same`.
        reference: the benchmark picture's name.
        bits: in how many of 256 bits the nearest hashes differ.
        how: what was done to it, as far as that can be told: `a crop of it, mirrored`.
    """

    kind: str
    reference: str
    bits: int
    how: str = ""


class _Near(NamedTuple):
    """A pair of near hashes: of the picture's `query`, and of a benchmark picture's window."""

    bits: int
    owner: int
    query: int
    window: int
    contains: bool


class ImageIndex:
    """Finds pictures that were re-encoded, resized, turned, inverted, framed, cropped, or put into a collage.

    A crop of a benchmark picture meets the hashes of that picture's windows; a picture that a benchmark
    picture was cropped from meets it with the hashes of its own windows. What is near is looked at closely.

    Args:
        references: the benchmark's pictures.
        max_bits: pictures whose hashes differ in at most so many bits are looked at closely.
    """

    def __init__(self, references: Sequence[ImageRecord], max_bits: int) -> None:
        import faiss

        self._references = references
        self._max_bits = max_bits
        self._by_bytes = {record.sha256: record.name for record in references}
        self._by_pixels = {record.pixels: record.name for record in references}
        self._owners = [number for number, record in enumerate(references) if len(record.windows)]
        self._windows, self._wholes = faiss.IndexBinaryFlat(BITS), faiss.IndexBinaryFlat(BITS)
        for number in self._owners:
            self._windows.add(_bytes(references[number].windows))  # pyright: ignore[reportCallIssue]
            self._wholes.add(_bytes(references[number].windows[:1]))  # pyright: ignore[reportCallIssue]

    def match(self, record: ImageRecord, thumbnail: Callable[[], Thumbnail]) -> ImageMatch | None:
        """The benchmark picture that is the same one; None where there is none.

        Args:
            thumbnail: makes the picture's `grey_thumbnail`, which is only needed where a hash is near.
        """
        for kind, names, digest in (
            ("same bytes", self._by_bytes, record.sha256),
            ("same pixels", self._by_pixels, record.pixels),
        ):
            if digest in names:
                return ImageMatch(kind, names[digest], 0)
        near = self._candidates(record)
        if not near:
            return None
        own, best = thumbnail(), None
        for item in near:
            found = self.likeness(item, own)
            sure = item.bits <= SURE_BITS and not found.is_document
            if (found.is_same or sure) and (best is None or found.whole > best[0]):
                best = (found.whole, item)
        if best is None:
            return None
        item = best[1]
        return ImageMatch("looks the same", self._references[item.owner].name, item.bits, _how(item))

    def likeness(self, item: _Near, thumbnail: Thumbnail) -> Likeness:
        """How far a picture agrees with a candidate."""
        signs = self._references[item.owner].sketch
        if item.contains:
            return likeness(cut(thumbnail, windows()[item.window]), signs, WHOLE)
        return likeness(_queried(thumbnail, item.query), signs, windows()[item.window])

    def nearest(self, record: ImageRecord) -> int | None:
        """In how many bits the nearest hash differs, however many; None for a picture without contrast."""
        near = self._near(record)
        return min(item.bits for item in near) if near else None

    def _candidates(self, record: ImageRecord) -> list[_Near]:
        """The nearest pair of hashes of each of a few benchmark pictures, nearest first."""
        found: dict[int, _Near] = {}
        for item in sorted(self._near(record)):
            if item.bits > self._max_bits or len(found) == _MOST_CANDIDATES:
                break
            found.setdefault(item.owner, item)
        return list(found.values())

    def _near(self, record: ImageRecord) -> list[_Near]:
        if not len(record.windows) or not self._owners:
            return []
        count = len(windows())
        neighbours = min(_NEIGHBOURS, count * len(self._owners))
        found = []
        bits, places = self._windows.search(_bytes(record.queries), neighbours)  # pyright: ignore[reportCallIssue]
        for query, row in enumerate(zip(bits.tolist(), places.tolist(), strict=True)):
            for distance, place in zip(*row, strict=True):
                found.append(_Near(distance, self._owners[place // count], query, place % count, False))
        bits, places = self._wholes.search(_bytes(record.windows[1:]), 1)  # pyright: ignore[reportCallIssue]
        for window in range(count - 1):
            distance, place = int(bits[window, 0]), int(places[window, 0])
            found.append(_Near(distance, self._owners[place], 0, window + 1, True))
        return found


def _queried(thumbnail: Thumbnail, query: int) -> Thumbnail:
    """The thumbnail of a record's query of this number (`hash_list.query_hashes`)."""
    if query < 2 * TURNS:
        return turned(thumbnail, query)
    query -= 2 * TURNS
    if query < len(ANGLES):
        return rotated(thumbnail, ANGLES[query])
    return cut(thumbnail, cells()[query - len(ANGLES)])


def _how(item: _Near) -> str:
    """What was done to the benchmark picture, in words."""
    if item.contains:
        return "contains it"
    words = ["a crop of it" if item.window else "it"]
    query = item.query - 2 * TURNS
    if query >= len(ANGLES):
        words.append("in a collage")
    elif query >= 0:
        words.append(f"rotated by about {abs(ANGLES[query]):g} degrees")
    else:
        words += ["inverted"] * (item.query >= TURNS)
        words += ["turned or mirrored"] * (item.query % TURNS > 0)
    return ", ".join(words)


def _bytes(hashes: NDArray[np.uint64]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, BITS // 8)
