"""How many pixels an image is resized to: two numbers in a recipe, for each family in its processor's terms.

The setting is written into the processor itself, so that all who read it (collators, the token count, the
saved files of a merged checkpoint, and through those vLLM) follow one number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

PixelRule = Callable[[Any, int | None, int | None], dict[str, Any]]
"""(image processor, fewest pixels, most pixels) -> the processor's own settings for it.

Raises:
    ValueError: a bound that this processor has not, in words.
"""


def patch_squares(image_processor: Any, low: int | None, high: int | None) -> dict[str, Any]:
    """Qwen-VL: `size` holds the area's bounds under the names of edges (`smart_resize` of its processor)."""
    size = image_processor.size
    low, high = int(low or size.shortest_edge), int(high or size.longest_edge)
    side = image_processor.patch_size * image_processor.merge_size
    if low > high:
        raise ValueError(f"fewest pixels ({low}) are more than the most ({high})")
    if high < side**2:
        raise ValueError(f"one image token is {side} x {side} pixels, more than max_pixels ({high})")
    return {"size": {"shortest_edge": low, "longest_edge": high}}


def patch_cubes(image_processor: Any, low: int | None, high: int | None) -> dict[str, Any]:
    """GLM-V: as Qwen-VL, but a still image is `temporal_patch_size` frames, whose pixels all count."""
    frames, size = image_processor.temporal_patch_size, image_processor.size
    low, high = low or size.shortest_edge // frames, high or size.longest_edge // frames
    found = patch_squares(image_processor, low, high)["size"]
    return {"size": {name: area * frames for name, area in found.items()}}


def whole_tiles(image_processor: Any, low: int | None, high: int | None) -> dict[str, Any]:
    """InternVL: tiles of one size, `min_patches` to `max_patches` of them; the thumbnail comes on top."""
    area = image_processor.size.height * image_processor.size.width
    fewest = image_processor.min_patches if low is None else max(1, math.ceil(low / area))
    most = image_processor.max_patches if high is None else high // area
    if most < 1:
        raise ValueError(f"a tile has {area} pixels, more than max_pixels ({high})")
    if fewest > most:
        raise ValueError(f"at least {fewest} tiles of {area} pixels, and at most {most}")
    return {"min_patches": fewest, "max_patches": most}


def longest_edge_of_tiles(image_processor: Any, low: int | None, high: int | None) -> dict[str, Any]:
    """Idefics 3 and SmolVLM: every image is scaled until its longest edge is `size.longest_edge`."""
    if low is not None:
        raise ValueError("its images are always scaled to one longest edge: it has no min_pixels")
    side = image_processor.max_image_size["longest_edge"]
    tiles = math.isqrt(high or 0) // side
    if tiles < 1:
        raise ValueError(f"a tile has {side} x {side} pixels, more than max_pixels ({high})")
    return {"size": {"longest_edge": tiles * side}}


def longest_edge_of_patches(image_processor: Any, low: int | None, high: int | None) -> dict[str, Any]:
    """Pixtral: an image whose longer edge passes `size.longest_edge` is scaled down to it, no other is.

    The edge is a whole number of tokens, whose patches are merged by two (Mistral Small) or not at all.
    """
    if low is not None:
        raise ValueError("its images are never enlarged: it has no min_pixels")
    side = 2 * int(image_processor.patch_size["height"])
    edge = math.isqrt(high or 0) // side * side
    if edge < side:
        raise ValueError(f"one image token is {side} x {side} pixels, more than max_pixels ({high})")
    return {"size": {"longest_edge": edge}}


def apply(image_processor: Any, settings: dict[str, Any]) -> None:
    """Write the settings into the processor, as its constructor would have kept them."""
    for name, value in settings.items():
        held = getattr(image_processor, name)
        setattr(image_processor, name, type(held)(**value) if isinstance(value, dict) else value)
