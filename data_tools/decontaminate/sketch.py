"""A second look at two pictures whose hashes are near: do they agree everywhere, or in their layout alone?

A sketch says of 128 x 128 places whether each is brighter than what is around it. Forms, slides and screens
of one template share most of them and differ where their contents do; a picture that was re-encoded or
resized differs nowhere. So pictures that are mostly one flat tone (documents) must agree in every block,
others on the whole.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.decontaminate.perceptual import THUMBNAIL, Box

SIDE = 128
BYTES = SIDE * SIDE // 8
_AROUND, _BLOCKS = 19, 16
_STEPS = (2.0, 1.0, 0.5, 0.25)
"""Of a 128th of a side."""
_MOVES = np.array(
    [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float64
)
_FLAT, _NEAR = 0.27, 1
"""Share of one tone from which on a picture is a document: drawn ones have 0.64 and more, scanned ones some
0.3, the sky of a photograph 0.2."""
LEAST_AGREEMENT = 0.75
"""Of photographs. Altered ones agree in 0.8 to 1.0, strangers in at most 0.65."""
LEAST_OF_BLOCKS = 0.92
"""Of documents, in all blocks but a twentieth. The same document re-encoded or resized has 0.94 to 1.0,
another one of its template 0.49 to 0.90."""


class Likeness(NamedTuple):
    """How far two pictures agree, 0 to 1: on the whole, in the worst blocks but a twentieth, and how flat."""

    whole: float
    worst: float
    flatness: float

    @property
    def is_document(self) -> bool:
        """Whether one of them is mostly one tone."""
        return self.flatness >= _FLAT

    @property
    def is_same(self) -> bool:
        """Whether they show the same."""
        if self.is_document:
            return self.worst >= LEAST_OF_BLOCKS
        return self.whole >= LEAST_AGREEMENT


def sketch(thumbnail: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The signs of a thumbnail's detail, packed, [2048]."""
    return np.packbits(_detail(thumbnail) > 0)


def likeness(part: NDArray[np.float32], signs: NDArray[np.uint8], window: Box) -> Likeness:
    """How far a thumbnail agrees with a window of the picture that has this sketch.

    The window's edges are moved by steps that get smaller, as long as the agreement grows: windows stand in a
    grid, and where a plain border ends is known to a 256th of a side.
    """
    detail = _detail(part)
    weights = np.minimum(np.abs(detail), np.percentile(np.abs(detail), 90))
    total = max(float(weights.sum()), 1e-9)
    up, other = detail > 0, np.unpackbits(signs).reshape(SIDE, SIDE).astype(bool)

    def agreed(box: NDArray[np.float64]) -> NDArray[np.float32]:
        return weights * (up == _window(other, box))

    box = np.array(window)
    best = float(agreed(box).sum())
    for step in _STEPS:
        for move in _MOVES:
            for sign in (1, -1):
                tried = box + sign * step / SIDE * move
                while (found := float(agreed(tried).sum())) > best:
                    box, best, tried = tried, found, tried + sign * step / SIDE * move
    sums, reached = _by_block(weights), _by_block(agreed(box))
    telling = sums > 0.25 * sums.mean()
    worst = float(np.percentile(reached[telling] / sums[telling], 5)) if telling.any() else 0.0
    return Likeness(best / total, worst, _flatness(part))


def _detail(thumbnail: NDArray[np.float32]) -> NDArray[np.float32]:
    from scipy.ndimage import uniform_filter

    step = THUMBNAIL // SIDE
    grey = thumbnail.reshape(SIDE, step, SIDE, step).mean(axis=(1, 3))
    return grey - uniform_filter(grey, _AROUND)


def _window(signs: NDArray[np.bool_], box: NDArray[np.float64]) -> NDArray[np.bool_]:
    places = (np.arange(SIDE) + 0.5) / SIDE
    columns = ((box[0] + places * (box[2] - box[0])) * SIDE).astype(int).clip(0, SIDE - 1)
    rows = ((box[1] + places * (box[3] - box[1])) * SIDE).astype(int).clip(0, SIDE - 1)
    return signs[rows][:, columns]


def _by_block(values: NDArray[np.float32]) -> NDArray[np.float32]:
    step = SIDE // _BLOCKS
    return values.reshape(_BLOCKS, step, _BLOCKS, step).sum(axis=(1, 3))


def _flatness(thumbnail: NDArray[np.float32]) -> float:
    """The share of places within one grey value of the commonest one."""
    counts = np.bincount(thumbnail.clip(0, 255).astype(int).ravel(), minlength=256)
    return float(np.convolve(counts, np.ones(2 * _NEAR + 1), "same").max() / thumbnail.size)
