"""Hashes of how a picture looks, which survive re-encoding and resizing, also of its crops and turned images.

The hash is the DCT hash of the library ImageHash (`phash`, hash_size=16; the idea is Zauner 2010,
"Implementation and benchmarking of perceptual image hash functions"): 64 x 64 grey pixels, the 16 x 16
lowest coefficients of their DCT, one bit each for above the median. Mirroring a picture changes the sign of
its odd coefficients, turning it by 90 degrees transposes them and inverting it changes the sign of all, so
the hashes of those images cost nothing (PDQ, Facebook 2019, does the same for its eight). A crop is found
because a reference picture is hashed in a grid of windows as well. Plain borders are cut off before
anything else.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Hash = NDArray[np.uint64]
"""256 bits as [4]; several as [..., 4]."""
Box = tuple[float, float, float, float]
"""(left, top, right, bottom) as shares of the sides."""

BITS = 256
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_SIDE, _KEPT = 64, 16
THUMBNAIL = 256
_WINDOWS = ((1.0, 1.0), (0.95, 0.025), (0.9, 0.025), (0.85, 0.0375), (0.8, 0.05))
"""Share of both sides, and the step from one window to the next."""
ANGLES = (-3.0, -2.0, -1.0, 1.0, 2.0, 3.0)
_INNER: Box = (0.05, 0.05, 0.95, 0.95)
_GRIDS = ((2, 1), (1, 2), (2, 2), (3, 1), (1, 3), (3, 3))
_GAP = 0.03
"""Of a cell, on each side: what may lie between the pictures of a collage is left out."""
_MIN_CONTRAST = 2.0
_PLAIN_LINE = 10.0
_LEAST_LEFT = 0.3
_MOST_FRAMES = 4
# Sign of each coefficient in the picture and its three mirror images, [4, 16, 16].
_ROW, _COLUMN = np.mgrid[:_KEPT, :_KEPT]
_SIGNS = np.stack([across**_COLUMN * down**_ROW for across, down in product((1, -1), repeat=2)])
TURNS = 8
"""As it is, upside down, left to right, both; then the same of its transposed image."""


def image_hash(image: Image.Image) -> Hash:
    """The hash of a picture, [4]; equal to `imagehash.phash(image, hash_size=16)`."""
    return _bits(_coefficients(_small(image.convert("L"))[None]))[0]


def grey_thumbnail(image: Image.Image) -> NDArray[np.float32]:
    """A picture without its plain borders as 256 x 256 grey values, 0 to 255; the sides lose their ratio."""
    grey = image.convert("L")
    box = _pixels(grey, content_box(grey))
    small = grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS, box=box)
    return np.asarray(small, dtype=np.float32)


def content_box(grey: Image.Image) -> Box:
    """What is left without plain borders, which padding, frames and margins are, one inside the other.

    A line at an edge goes as long as its values, and the mean beside the edge's, differ by no more than JPEG
    makes them. Nothing goes where less than 30% of a side would be left.
    """
    values = np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), dtype=np.float32)
    left, top, right, bottom = 0, 0, THUMBNAIL, THUMBNAIL
    for _ in range(_MOST_FRAMES):
        inner = values[top:bottom, left:right]
        rows, columns = _plain_ends(inner), _plain_ends(inner.T)
        found = left + columns[0], top + rows[0], right - columns[1], bottom - rows[1]
        if min(found[2] - found[0], found[3] - found[1]) < _LEAST_LEFT * THUMBNAIL:
            break
        if found == (left, top, right, bottom):
            break
        left, top, right, bottom = found
    return (left / THUMBNAIL, top / THUMBNAIL, right / THUMBNAIL, bottom / THUMBNAIL)


def _plain_ends(lines: NDArray[np.float32]) -> tuple[int, int]:
    """How many lines are plain at the beginning and at the end."""
    return _plain_run(lines), _plain_run(lines[::-1])


def _plain_run(lines: NDArray[np.float32]) -> int:
    low, high = np.percentile(lines[0], [2, 98])
    if high - low > _PLAIN_LINE:
        return 0
    low, high = np.percentile(lines, [2, 98], axis=1)
    mean = lines.mean(axis=1)
    plain = (high - low <= _PLAIN_LINE) & (np.abs(mean - mean[0]) <= _PLAIN_LINE)
    return len(plain) if plain.all() else int(np.argmin(plain))


def _pixels(grey: Image.Image, box: Box) -> Box:
    return (grey.width * box[0], grey.height * box[1], grey.width * box[2], grey.height * box[3])


def window_hashes(thumbnail: NDArray[np.float32]) -> Hash:
    """The hashes of the windows in a thumbnail, in the order of `windows`, [num_windows, 4]."""
    stack, places = _projections()
    found = (stack.reshape(-1, THUMBNAIL) @ thumbnail).reshape(len(stack), _KEPT, THUMBNAIL)
    rows = found[[row for row, _ in places]]
    columns = stack[[column for _, column in places]]
    return _bits(rows @ columns.transpose(0, 2, 1))


def turned_hashes(thumbnail: NDArray[np.float32]) -> Hash:
    """The hashes of a thumbnail turned in all eight ways, and of their inverted images, [16, 4]."""
    coefficients = _box_coefficients(thumbnail, WHOLE)
    eight = np.concatenate([coefficients * _SIGNS, coefficients.T * _SIGNS])
    return _bits(np.concatenate([eight, -eight]))


def turned(thumbnail: NDArray[np.float32], turn: int) -> NDArray[np.float32]:
    """The thumbnail that has the hash of this place among `turned_hashes`."""
    found = thumbnail.T if turn % TURNS >= 4 else thumbnail
    found = found[::-1] if turn % 2 else found
    found = found[:, ::-1] if turn % 4 >= 2 else found
    return 255 - found if turn >= TURNS else found


def box_hash(thumbnail: NDArray[np.float32], box: Box) -> Hash:
    """The hash of a part of a thumbnail, [4]."""
    return _bits(_box_coefficients(thumbnail, box)[None])[0]


def rotated(thumbnail: NDArray[np.float32], angle: float) -> NDArray[np.float32]:
    """The inner 90% of a thumbnail that is rotated by some degrees."""
    image = Image.fromarray(thumbnail).rotate(angle, Image.Resampling.BILINEAR)
    return cut(np.asarray(image), _INNER)


@cache
def cells() -> tuple[Box, ...]:
    """The parts of collages of two to nine pictures in a grid, without their edges."""
    return tuple(
        (
            (column + _GAP) / across,
            (row + _GAP) / down,
            (column + 1 - _GAP) / across,
            (row + 1 - _GAP) / down,
        )
        for across, down in _GRIDS
        for row, column in product(range(down), range(across))
    )


def cut(thumbnail: NDArray[np.float32], box: Box) -> NDArray[np.float32]:
    """A part of a thumbnail as a thumbnail."""
    left, top, right, bottom = (THUMBNAIL * side for side in box)
    image, size = Image.fromarray(np.ascontiguousarray(thumbnail)), (THUMBNAIL, THUMBNAIL)
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=(left, top, right, bottom)))


@cache
def windows() -> tuple[Box, ...]:
    """The windows of a picture; the whole comes first."""
    found = []
    for size, step in _WINDOWS:
        starts = [place * step for place in range(round((1 - size) / step) + 1)]
        found += [(left, top, left + size, top + size) for top, left in product(starts, repeat=2)]
    return tuple(found)


def is_plain(image: Image.Image) -> bool:
    """Whether a picture has next to no contrast: its hash is noise then, and equal to many another's."""
    grey = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32)
    return float(grey.std()) < _MIN_CONTRAST


def distances(hashes: Hash, other: Hash) -> NDArray[np.int64]:
    """In how many bits hashes [..., 4] differ from another one [4]."""
    return np.bitwise_count(hashes ^ other).sum(axis=-1).astype(np.int64)


def _small(grey: Image.Image) -> NDArray[np.float64]:
    return np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), dtype=np.float64)


def _box_coefficients(thumbnail: NDArray[np.float32], box: Box) -> NDArray[np.float32]:
    across, down = _projection(box[0], box[2]), _projection(box[1], box[3])
    return (down @ thumbnail @ across.T).astype(np.float32)


@cache
def _projections() -> tuple[NDArray[np.float32], list[tuple[int, int]]]:
    """Matrices [K, 16, 256] that make DCT coefficients of an interval of a side, and each window's two."""
    intervals = list(dict.fromkeys((box[side], box[side + 2]) for box in windows() for side in (0, 1)))
    places = [(intervals.index((box[1], box[3])), intervals.index((box[0], box[2]))) for box in windows()]
    return np.stack([_projection(*interval) for interval in intervals]), places


@cache
def _projection(start: float, stop: float) -> NDArray[np.float32]:
    """[16, 256]: an interval of 256 values scaled to 64 as Pillow does, then the lowest coefficients."""
    unit = Image.fromarray(np.eye(THUMBNAIL, dtype=np.float32))
    box = (0, THUMBNAIL * start, THUMBNAIL, THUMBNAIL * stop)
    scaled = np.asarray(unit.resize((THUMBNAIL, _SIDE), Image.Resampling.LANCZOS, box=box))
    return (_dct_matrix() @ scaled).astype(np.float32)


@cache
def _dct_matrix() -> NDArray[np.float64]:
    """[16, 64], the lowest rows of the DCT-II, unnormalised as scipy's."""
    places = np.arange(_SIDE)
    return 2 * np.cos(np.pi * np.arange(_KEPT)[:, None] * (2 * places + 1) / (2 * _SIDE))


def _coefficients(pieces: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lowest DCT coefficients of grey pictures [N, 64, 64], [N, 16, 16]."""
    return _dct_matrix() @ pieces @ _dct_matrix().T


def _bits(coefficients: NDArray[np.floating]) -> Hash:
    flat = coefficients.reshape(len(coefficients), -1)
    above = flat > np.median(flat, axis=1, keepdims=True)
    return np.packbits(above, axis=1).view(np.uint64)
