"""Worse versions of a row's image, for the objectives that compare an answer with and without it.

Deterministic: the same seed, row and image give the same pixels in every epoch and run, so that the
reference's log-probs with them can be stored. The size stays the same, and with it the number of image
tokens in every family.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from align.digest import digest_json
from align.trainers.objectives.recipe import Conditional, CroppedImage, MaskedImage, NoisyImage, Variant

_STEPS = 1000
_LEAST_AREA = 0.01
_SHAPES = (3 / 4, 4 / 3)


def image_negative(settings: Conditional, image: Image.Image, seed: int, row: str, index: int) -> Image.Image:
    """The negative that `settings` asks for, of the same size and mode.

    Args:
        row: id of the row; together with `seed` and `index` (the image's place in it) it fixes the draw.

    Raises:
        ValueError: a retrieved image, which is the row's and not made here.
    """
    stream = np.random.default_rng(int(digest_json([seed, row, index, settings.image])[:16], 16))
    if isinstance(settings, CroppedImage):
        return cropped(image, stream, settings.max_area, settings.variant)
    if isinstance(settings, MaskedImage):
        return masked(image, stream, settings.share)
    if isinstance(settings, NoisyImage):
        return noisy(image, stream, settings.step)
    raise ValueError(f"an image cannot be {settings.image}")


def cropped(
    image: Image.Image, stream: np.random.Generator, max_area: float, variant: Variant
) -> Image.Image:
    """A random crop enlarged to the image's size; what the variants draw: see `CroppedImage`."""
    width, height = image.size
    if variant == "paper":
        side = math.sqrt(stream.uniform(0, max_area))
        box = (side * width, side * height)
    else:
        area = stream.uniform(_LEAST_AREA, max_area) * width * height
        shape = math.exp(stream.uniform(math.log(_SHAPES[0]), math.log(_SHAPES[1])))
        box = (math.sqrt(area * shape), math.sqrt(area / shape))
    across, down = (min(max(round(size), 1), limit) for size, limit in zip(box, image.size, strict=True))
    left, top = (int(stream.integers(0, rest + 1)) for rest in (width - across, height - down))
    crop = image.crop((left, top, left + across, top + down))
    return crop.resize(image.size, Image.Resampling.BILINEAR)


def masked(image: Image.Image, stream: np.random.Generator, share: float) -> Image.Image:
    """A random `share` of the pixels take the image's mean colour.

    The released code masks after normalisation, where the mean is one number for all channels.
    """
    pixels = np.array(image)
    flat = pixels.reshape(image.width * image.height, -1)
    mean = flat.mean(axis=0)
    flat[stream.permutation(len(flat))[: int(len(flat) * share)]] = np.round(mean)
    return Image.fromarray(flat.reshape(pixels.shape))


def noisy(image: Image.Image, stream: np.random.Generator, step: int) -> Image.Image:
    """q(x_t | x_0) of a diffusion over 1000 steps: sqrt(a) x_0 + sqrt(1 - a) noise, a = `signal_share(step)`.

    Pixels run over [-1, 1] and are clipped to it; the released codes add the same noise to normalised
    pixel values, which no file format could hold.
    """
    clean = np.asarray(image, dtype=np.float64) / 127.5 - 1
    share = signal_share(step)
    mixed = math.sqrt(share) * clean + math.sqrt(1 - share) * stream.standard_normal(clean.shape)
    return Image.fromarray(np.round((mixed.clip(-1, 1) + 1) * 127.5).astype(np.uint8))


def signal_share(step: int) -> float:
    """The product of 1 - beta over steps 0 to `step`: how much of the image's variance is left.

    beta goes from 1e-5 to 5e-3 along a sigmoid over [-6, 6] (DAMO-NLP-SG/VCD, vcd_utils/
    vcd_add_noise.py; POVID and SeVa use it unchanged).
    """
    betas = 1 / (1 + np.exp(-np.linspace(-6, 6, _STEPS))) * (5e-3 - 1e-5) + 1e-5
    return float(np.prod(1 - betas[: step + 1]))
