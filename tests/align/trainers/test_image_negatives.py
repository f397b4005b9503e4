"""Image negatives: fixed by seed and row, of the image's size, as far from it as said."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from align.trainers.image_negatives import cropped, image_negative, masked, noisy, signal_share
from align.trainers.objectives.recipe import (
    Conditional,
    CroppedImage,
    MaskedImage,
    NoisyImage,
    RetrievedImage,
)

KINDS: list[Conditional] = [
    CroppedImage(image="cropped"),
    CroppedImage(image="cropped", variant="released"),
    MaskedImage(image="masked"),
    NoisyImage(image="noisy"),
]


def gradient(width: int = 60, height: int = 40) -> Image.Image:
    """Red tells the column, green the row, so that any crop tells where it is from."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = np.arange(width)
    pixels[..., 1] = np.arange(height)[:, None]
    pixels[..., 2] = 200
    return Image.fromarray(pixels)


@pytest.mark.parametrize("settings", KINDS)
def test_seed_row_and_place_fix_the_pixels(settings: Conditional) -> None:
    image = gradient()
    made = image_negative(settings, image, seed=1, row="a", index=0)
    assert made.size == image.size and made.mode == image.mode
    assert made.tobytes() == image_negative(settings, image, 1, "a", 0).tobytes()
    others = [image_negative(settings, image, *draw) for draw in ((2, "a", 0), (1, "b", 0), (1, "a", 1))]
    assert len({other.tobytes() for other in [image, made, *others]}) == 5


def test_a_retrieved_image_is_not_made() -> None:
    with pytest.raises(ValueError, match="retrieved"):
        image_negative(RetrievedImage(image="retrieved"), gradient(), 0, "a", 0)


@pytest.mark.parametrize(("variant", "least"), [("paper", 0.0), ("released", 0.01)])
def test_crops_are_at_most_a_fifth_of_the_image(variant: str, least: float) -> None:
    shares, shapes = [], []
    for number in range(200):
        made = np.asarray(cropped(gradient(600, 400), np.random.default_rng(number), 0.2, variant))  # type: ignore[arg-type]
        across = int(made[..., 0].max()) - int(made[..., 0].min()) + 1
        down = int(made[..., 1].max()) - int(made[..., 1].min()) + 1
        if across > 200 or down > 200:
            continue  # the gradient has wrapped around at 256
        shares.append(across * down / (600 * 400))
        shapes.append(across / down)
    assert max(shares) <= 0.22 and min(shares) >= least - 0.005
    assert max(shares) > 0.08
    if variant == "paper":
        assert np.quantile(shapes, 0.1) > 1.3, "the image is 3:2, and so are its crops"
    else:
        assert min(shapes) > 0.6 and max(shapes) < 1.6
        assert np.std(shapes) > 0.1


def test_masking_hits_exactly_the_share_with_the_mean_colour() -> None:
    image = gradient()
    made = np.asarray(masked(image, np.random.default_rng(0), 0.3)).reshape(-1, 3)
    clean = np.asarray(image).reshape(-1, 3)
    mean = np.round(clean.mean(axis=0)).astype(int)
    assert mean.tolist() == [30, 20, 200]  # columns 0 to 59, rows 0 to 39
    changed = (made != clean).any(axis=1)
    assert (made[changed] == mean).all()
    assert (made == mean).all(axis=1).sum() in (720, 721)  # 30% of 2400, and the pixel that has it anyway


def test_signal_share_by_the_formula_written_out() -> None:
    product = 1.0
    shares = []
    for step in range(1000):
        position = -6 + 12 * step / 999
        product *= 1 - ((5e-3 - 1e-5) / (1 + 2.718281828459045**-position) + 1e-5)
        shares.append(product)
    for step in (0, 500, 800, 999):
        assert signal_share(step) == pytest.approx(shares[step], rel=1e-10)
    assert signal_share(500) == pytest.approx(0.744, abs=2e-3)
    # exp(-(sum of beta + sum of beta^2 / 2)) = exp(-(2.505 + 0.0052)), the sigmoid's sums in closed form
    assert signal_share(999) == pytest.approx(0.0812, abs=2e-4)


def test_noise_has_the_mean_and_spread_of_the_forward_process() -> None:
    grey = Image.new("RGB", (200, 200), (140, 140, 140))
    made = np.asarray(noisy(grey, np.random.default_rng(0), 100), dtype=float) / 127.5 - 1
    share = signal_share(100)
    assert made.mean() == pytest.approx(share**0.5 * (140 / 127.5 - 1), abs=2e-3)
    assert made.std() == pytest.approx((1 - share) ** 0.5, rel=0.02)
