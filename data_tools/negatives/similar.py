"""Which picture looks most like another: the retrieved negatives of Re-Align, through a faiss index.

Without a model a picture is described by its colour layout: the MPEG-7 descriptor (ISO/IEC 15938-3, Colour
Layout; Kasutani and Yamada 2001), the lowest DCT coefficients of an 8 x 8 mean picture in YCbCr, 6 of
brightness and 3 of each colour. With a checkpoint, by the mean of its image features.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from align.inputs.images import open_image
from align.models.loading import ModelSection
from align.progress import track

_GRID = 8
# Zigzag order of an 8 x 8 block as far as it is needed: (row, column).
_ZIGZAG = ((0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2))
_KEPT = (6, 3, 3)
# The weights of LIRE's ColorLayout; it adds three roots, one a plane, where this is one Euclidean distance.
_WEIGHTS = np.sqrt(np.array([2, 2, 2, 1, 1, 1, 2, 1, 1, 4, 2, 2], dtype=np.float32))

Describe = Callable[[Image.Image], NDArray[np.float32]]


def colour_layout(image: Image.Image) -> NDArray[np.float32]:
    """The descriptor of one picture, float32 [12], weighted for Euclidean distance."""
    from scipy.fft import dctn

    small = image.convert("YCbCr").resize((_GRID, _GRID), Image.Resampling.BOX)
    planes = np.asarray(small, dtype=np.float32)
    found = []
    for plane, kept in enumerate(_KEPT):
        coefficients = np.asarray(dctn(planes[:, :, plane], norm="ortho"))
        found += [coefficients[row, column] for row, column in _ZIGZAG[:kept]]
    return np.asarray(found, dtype=np.float32) * _WEIGHTS


def image_features(section: ModelSection) -> Describe:
    """Describes a picture by a checkpoint: its image features, meaned over tokens, of length 1."""
    import torch

    from align.models.loading import load_model, load_processor

    processor: Any = load_processor(section)
    model: Any = load_model(section)
    accepted = set(inspect.signature(model.get_image_features).parameters)

    def describe(image: Image.Image) -> NDArray[np.float32]:
        made = processor.image_processor(images=[image], return_tensors="pt")
        inputs = {name: value for name, value in made.items() if name in accepted}
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        with torch.no_grad():
            found = model.get_image_features(**inputs)
        features = getattr(found, "pooler_output", found)
        pieces = features if isinstance(features, list | tuple) else [features]
        mean = torch.cat([piece.reshape(-1, piece.shape[-1]) for piece in pieces]).float().mean(dim=0)
        return torch.nn.functional.normalize(mean, dim=0).numpy()

    return describe


def describe_all(paths: Sequence[Path], describe: Describe) -> NDArray[np.float32]:
    """Descriptors of pictures, float32 [N, D]."""
    found = [describe(open_image(path)) for path in track(paths, "describing", len(paths), "images")]
    return np.ascontiguousarray(np.stack(found), dtype=np.float32)


def neighbours(features: NDArray[np.float32], queries: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The nearest pictures by Euclidean distance, nearest first.

    Args:
        features: [N, D].
        queries: indices [Q] of the pictures whose neighbours are wanted.

    Returns:
        Indices [Q, most], the picture itself left out; -1 where there are fewer.
    """
    import faiss

    index = faiss.IndexFlatL2(features.shape[1])
    index.add(features)  # pyright: ignore[reportCallIssue]
    _, found = index.search(features[queries], most + 1)  # pyright: ignore[reportCallIssue]
    others = np.full((len(queries), most), -1, dtype=np.int64)
    for row, query in enumerate(queries):
        rest = found[row][found[row] != query][:most]
        others[row, : len(rest)] = rest
    return others
