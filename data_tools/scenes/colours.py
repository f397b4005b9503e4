"""Colours of things: which categories come in several, and how a sprite is dyed.

Emoji have one colour each. A car of one set is always red, so a model could answer "What color is the
car?" without looking; dyed at render time, the colour is in the picture alone.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 44, 44),
    "blue": (48, 96, 220),
    "green": (44, 160, 70),
    "yellow": (246, 206, 40),
    "purple": (146, 62, 186),
    "black": (44, 44, 50),
}
"""Name -> RGB of a surface of mean brightness. No orange: CHAIR's list reads it as the fruit."""
COLOURED = frozenset(
    ("car", "bus", "truck", "boat", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "kite",
     "skateboard", "bottle", "cup", "bowl", "chair", "couch", "bed", "vase", "book")
)  # fmt: skip
"""Categories whose objects have a colour; the others look as their icon set draws them."""

_SATURATED = 0.3
"""Saturation from which a pixel is paint; below are wheels, windows and outlines, which keep their grey."""
_LEAST_PAINT = 0.35
"""A sprite with a smaller share of paint is line art: there all but the dark lines is dyed."""
_DARK = 90.0


def _shape_of_paint(image: Image.Image) -> np.ndarray:
    """float32 [h, w, 1], 0..1: how much of each pixel takes the dye."""
    pixels = np.asarray(image, np.float32)
    rgb, visible = pixels[..., :3], pixels[..., 3] > 96
    high, low = rgb.max(-1), rgb.min(-1)
    saturation = (high - low) / np.maximum(high, 1.0)
    if (saturation[visible] > _SATURATED).mean() >= _LEAST_PAINT:
        return np.clip((saturation - _SATURATED / 2) / (_SATURATED / 2), 0, 1)[..., None]
    return np.clip((rgb.mean(-1) - _DARK / 2) / (_DARK / 2), 0, 1)[..., None]


def dye(image: Image.Image, colour: str) -> Image.Image:
    """The RGBA sprite `image` with its paint in `colour` (a key of `COLOURS`), its light and shade kept."""
    pixels = np.asarray(image, np.float32)
    rgb, paint = pixels[..., :3], _shape_of_paint(image)
    brightness = rgb.mean(-1, keepdims=True)
    mean = float((brightness * paint).sum() / max(float(paint.sum()), 1.0))
    shade = np.clip(brightness / max(mean, 1.0), 0.6, 1.35)
    dyed = rgb * (1 - paint) + np.array(COLOURS[colour], np.float32) * shade * paint
    out = np.concatenate([np.clip(dyed, 0, 255), pixels[..., 3:]], -1)
    return Image.fromarray(out.round().astype(np.uint8), "RGBA")
