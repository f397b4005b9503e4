"""Which benchmark picture another picture is: the same bytes, the same pixels, or the same to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_tools.decontaminate.hash_list import ImageRecord
from data_tools.decontaminate.perceptual import BITS

MAX_BITS = 48
"""Of 256. On 500 pictures of the embedded world altered ones differ in at most 48, others in at least 50
(benchmarks/decontamination.py)."""


@dataclass(frozen=True)
class ImageMatch:
    """A match.

    Attributes:
        kind: `same bytes`, `same pixels` or `looks the same`.
        reference: the benchmark picture's name.
        bits: in how many of 256 bits the nearest hashes differ.
    """

    kind: str
    reference: str
    bits: int


class ImageIndex:
    """Finds pictures that were re-encoded, resized, mirrored or cropped.

    A crop of a benchmark picture meets the hashes of that picture's windows; a picture that a benchmark
    picture was cropped from meets it with the hashes of its own windows.

    Args:
        references: the benchmark's pictures.
        max_bits: pictures whose hashes differ in at most so many bits look the same.
    """

    def __init__(self, references: Sequence[ImageRecord], max_bits: int) -> None:
        import faiss

        self._references = references
        self._max_bits = max_bits
        self._by_bytes = {record.sha256: record.name for record in references}
        self._by_pixels = {record.pixels: record.name for record in references}
        self._windows, self._wholes = faiss.IndexBinaryFlat(BITS), faiss.IndexBinaryFlat(BITS)
        self._window_owner: list[int] = []
        self._whole_owner: list[int] = []
        for number, record in enumerate(references):
            plain = record.hashes[:, 0]
            if len(plain):
                self._windows.add(_bytes(plain))  # pyright: ignore[reportCallIssue]
                self._wholes.add(_bytes(plain[:1]))  # pyright: ignore[reportCallIssue]
                self._window_owner += [number] * len(plain)
                self._whole_owner.append(number)

    def match(self, record: ImageRecord) -> ImageMatch | None:
        """The nearest benchmark picture that is the same one; None where there is none."""
        for kind, names, digest in (
            ("same bytes", self._by_bytes, record.sha256),
            ("same pixels", self._by_pixels, record.pixels),
        ):
            if digest in names:
                return ImageMatch(kind, names[digest], 0)
        found = self.nearest(record)
        return found if found is not None and found.bits <= self._max_bits else None

    def nearest(self, record: ImageRecord) -> ImageMatch | None:
        """The picture that looks most alike, however little; None for a picture without contrast."""
        if not len(record.hashes) or not self._whole_owner:
            return None
        sides = [(self._windows, self._window_owner, record.hashes[0])]
        if len(record.hashes) > 1:
            sides.append((self._wholes, self._whole_owner, record.hashes[1:].reshape(-1, BITS // 64)))
        best: tuple[int, int] | None = None
        for index, owner, hashes in sides:
            bits, places = index.search(_bytes(hashes), 1)  # pyright: ignore[reportCallIssue]
            row = int(bits[:, 0].argmin())
            found = (int(bits[row, 0]), owner[int(places[row, 0])])
            best = found if best is None else min(best, found)
        assert best is not None
        return ImageMatch("looks the same", self._references[best[1]].name, best[0])


def _bytes(hashes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, BITS // 8)
