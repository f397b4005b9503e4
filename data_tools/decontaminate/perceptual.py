"""Hashes of how a picture looks, which survive re-encoding and resizing, also of its crops and mirror images.

The hash is the DCT hash of the library ImageHash (`phash`, hash_size=16): 64 x 64 grey pixels, the 16 x 16
lowest coefficients of their DCT, one bit each for above the median. Mirroring a picture changes the sign of
its odd coefficients, so the hashes of its mirror images cost nothing. A crop is found because a reference
picture is hashed in a grid of windows as well.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Hash = NDArray[np.uint64]
"""256 bits as [4]; several as [..., 4]."""

BITS = 256
_SIDE, _KEPT = 64, 16
_THUMBNAIL = 256
_STEP = 0.025
_WINDOWS = (1.0, 0.95, 0.9)
_MIN_CONTRAST = 2.0
# Sign of each coefficient in the picture and its three mirror images, [4, 16, 16].
_ROW, _COLUMN = np.mgrid[:_KEPT, :_KEPT]
_SIGNS = np.stack([across**_COLUMN * down**_ROW for across, down in product((1, -1), repeat=2)])


def image_hash(image: Image.Image) -> Hash:
    """The hash of a picture, [4]; equal to `imagehash.phash(image, hash_size=16)`."""
    return _bits(_coefficients([image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)]))[0]


def window_hashes(image: Image.Image) -> Hash:
    """The hashes of a picture and of the windows in it, each as it is and mirrored, [num_windows, 4, 4].

    Windows have 95% and 90% of both sides, in steps of 2.5% of a side; the whole picture comes first. The
    second axis: as it is, upside down, left to right, both.
    """
    grey = image.convert("L")
    small = grey.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    whole = grey.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    pieces = []
    for left, top, right, bottom in windows()[1:]:
        box = (_THUMBNAIL * left, _THUMBNAIL * top, _THUMBNAIL * right, _THUMBNAIL * bottom)
        pieces.append(small.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS, box=box))
    mirrored = _coefficients([whole, *pieces])[:, None] * _SIGNS
    return _bits(mirrored.reshape(-1, _KEPT, _KEPT)).reshape(-1, len(_SIGNS), BITS // 64)


def windows() -> list[tuple[float, float, float, float]]:
    """(left, top, right, bottom) of each window as shares of the sides; the whole picture comes first."""
    found = []
    for size in _WINDOWS:
        starts = [place * _STEP for place in range(round((1 - size) / _STEP) + 1)]
        found += [(left, top, left + size, top + size) for top, left in product(starts, repeat=2)]
    return found


def is_plain(image: Image.Image) -> bool:
    """Whether a picture has next to no contrast: its hash is noise then, and equal to many another's."""
    grey = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32)
    return float(grey.std()) < _MIN_CONTRAST


def distances(hashes: Hash, other: Hash) -> NDArray[np.int64]:
    """In how many bits hashes [..., 4] differ from another one [4]."""
    return np.bitwise_count(hashes ^ other).sum(axis=-1).astype(np.int64)


def _coefficients(pieces: list[Image.Image]) -> NDArray[np.float64]:
    """The lowest DCT coefficients of grey pictures, [N, 16, 16]."""
    from scipy.fft import dctn

    pixels = np.stack([np.asarray(piece, dtype=np.float64) for piece in pieces])
    return np.asarray(dctn(pixels, axes=(1, 2)))[:, :_KEPT, :_KEPT]


def _bits(coefficients: NDArray[np.float64]) -> Hash:
    flat = coefficients.reshape(len(coefficients), -1)
    above = flat > np.median(flat, axis=1, keepdims=True)
    return np.packbits(above, axis=1).view(np.uint64)
