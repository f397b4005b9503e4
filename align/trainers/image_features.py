"""What a vision encoder gives its decoder, taken apart by image and put together again.

Families return it in three shapes: a list with one `[tokens, width]` an image (LLaVA-NeXT, Qwen-VL), one
array `[images, tokens, width]` (Gemma 3; InternVL and Idefics while no image is cut into tiles), and the
list with further ones of the same lengths for deeper layers (Qwen3-VL's deepstack).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, cat

_OWN, _ROW, _DEEP = "features", "row", "deepstack"


@dataclass(frozen=True)
class ImageFeatures:
    """What decoders read of their vision encoder's output; its other hidden states are not kept."""

    pooler_output: Any = None
    deepstack_features: Any = None


def image_features(output: Any) -> ImageFeatures:
    """Of a family's own output of `get_image_features`."""
    return ImageFeatures(output.pooler_output, getattr(output, "deepstack_features", None))


def by_image(features: ImageFeatures, number: int) -> list[dict[str, Tensor]] | None:
    """Each image's arrays by name; None where `number` images cannot be told apart (tiles, say)."""
    pooled, deep = features.pooler_output, features.deepstack_features
    if pooled is None or len(pooled) != number or any(len(layer) != number for layer in deep or ()):
        return None
    if isinstance(pooled, Tensor):
        return [{_ROW: row} for row in pooled] if deep is None else None
    layers = {f"{_DEEP}.{depth}": layer for depth, layer in enumerate(deep or ())}
    return [
        {_OWN: own, **{name: layer[image] for name, layer in layers.items()}}
        for image, own in enumerate(pooled)
    ]


def joined(parts: Sequence[Mapping[str, Tensor]], like: Tensor) -> ImageFeatures:
    """The inverse of `by_image`, on `like`'s device and in its dtype."""
    placed = [{name: part[name].to(like.device, like.dtype) for name in part} for part in parts]
    if _ROW in placed[0]:
        return ImageFeatures(cat([part[_ROW][None] for part in placed]))
    depth = len(placed[0]) - 1
    deep = [[part[f"{_DEEP}.{layer}"] for part in placed] for layer in range(depth)]
    return ImageFeatures([part[_OWN] for part in placed], deep or None)
