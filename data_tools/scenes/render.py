"""Compose one scene: icons of typical objects on a plain background, its truth known exactly.

Pictures are hard on purpose: small things, things before each other, several of one kind, paint of six
colours. A model that sees all of them perfectly leaves preference training nothing to mend.

A scene depends on (world seed, split, index) alone, so that any scene can be made at any time, in
any process, and a million of them need no more memory than one.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from PIL import Image

from data_tools.scenes.categories import BY_NAME, CATEGORIES, CONTEXTS, STRAY_SHARE, Context
from data_tools.scenes.colours import COLOURED, COLOURS, dye
from data_tools.scenes.draw_sprites import SPRITES_DIR

IMAGE_SIZE = 96
"""Pixels of a scene's sides."""
MAX_OBJECTS = 7
MIN_VISIBLE = 0.38
"""Least share of an object's pixels that later objects leave visible, in a crowded scene."""
TRAIN_STYLES = ("noto", "twemoji", "openmoji")
UNSEEN_STYLE = "fluent"
SPLITS = ("train", "dev", "test", "test_unseen_style")

_NUM_OBJECTS_WEIGHTS = np.array([0.06, 0.13, 0.19, 0.21, 0.18, 0.13, 0.10])
_REPEAT_SHARE = 0.32
_SIZE_RANGE = {1: (34, 48), 2: (30, 46), 3: (28, 42), 4: (26, 38), 5: (24, 34), 6: (22, 32), 7: (20, 30)}
_SMALL_SHARE = 0.15
_SMALL_SIZES = (14, 20)
"""Some objects stand far away, whatever else is there: about one patch of the base's tower."""
_CROWDED_SHARE = 0.4
_CROWD_SPREAD = 14.0
"""Pixels between the corners of things that stand before each other, as a normal deviation."""
_MIN_VISIBLE_APART = 0.7
"""Least visible share in the scenes that are not crowded."""
_SAME_COLOUR_SHARE = 0.6
_OPAQUE = 96
_PLACE_ATTEMPTS = 40


@dataclass(frozen=True)
class SceneObject:
    """One visible object; `bbox` is x, y, width, height in pixels around its visible part."""

    category: str
    bbox: tuple[int, int, int, int]
    area: int
    """Visible pixels."""
    visible: float
    """Visible pixels / all its pixels, in MIN_VISIBLE..1."""
    color: str | None = None
    """One of `COLOURS`; None where the category comes in one look only."""


@dataclass(frozen=True)
class Scene:
    """One image and everything that is true about it."""

    context: str
    style: str
    objects: tuple[SceneObject, ...]
    pixels: np.ndarray
    """uint8 [96, 96, 3], RGB."""
    instances: np.ndarray
    """int8 [96, 96]: index into `objects` of the object seen at a pixel, -1 for background."""


def scene_rng(seed: int, split: str, index: int) -> np.random.Generator:
    """The generator of one scene; a split's name enters by its CRC, never by `hash()`."""
    return np.random.default_rng([seed, zlib.crc32(split.encode()), index])


@cache
def _sprite_index() -> dict:
    return json.loads((SPRITES_DIR / "index.json").read_text())


@cache
def _sheet(style: str) -> Image.Image:
    return Image.open(SPRITES_DIR / f"{style}.png").convert("RGBA")


@cache
def sprite_cells(category: str) -> tuple[int, ...]:
    """Cells of a category's variants in every style's sheet."""
    cells = enumerate(_sprite_index()["cells"])
    return tuple(cell for cell, (name, _) in cells if name == category)


@cache
def sprite(style: str, cell: int) -> Image.Image:
    """RGBA sprite as drawn, trimmed; its longer side is the sheet's `sprite_size`."""
    index = _sprite_index()
    size = index["sprite_size"]
    row, column = divmod(cell, index["columns"])
    left, top = column * size, row * size
    image = _sheet(style).crop((left, top, left + size, top + size))
    box = image.getchannel("A").getbbox()
    if box is None:
        raise ValueError(f"sheet {style!r} has nothing in cell {cell}")
    return image.crop(box)


@lru_cache(maxsize=2048)
def _dyed(style: str, cell: int, color: str | None) -> Image.Image:
    image = sprite(style, cell)
    return image if color is None else dye(image, color)


@lru_cache(maxsize=8192)
def _scaled(style: str, cell: int, size: int, flip: bool, color: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Premultiplied colours float32 [h, w, 3] and alpha float32 [h, w, 1] of a resized sprite."""
    image = _dyed(style, cell, color)
    scale = size / max(image.size)
    shape = (max(3, round(image.width * scale)), max(3, round(image.height * scale)))
    image = image.resize(shape, Image.Resampling.BOX if size < 40 else Image.Resampling.BILINEAR)
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(image, dtype=np.float32)
    alpha = pixels[..., 3:] / 255.0
    return pixels[..., :3] * alpha, alpha


@cache
def _object_distribution(context_name: str) -> tuple[tuple[str, ...], np.ndarray]:
    context = next(c for c in CONTEXTS if c.name == context_name)
    names = tuple(category.name for category in CATEGORIES)
    typical = np.array([context.weights.get(name, 0.0) for name in names])
    weights = (1 - STRAY_SHARE) * typical / typical.sum() + STRAY_SHARE / len(names)
    return names, np.cumsum(weights)


def draw_categories(context: Context, rng: np.random.Generator) -> list[str]:
    """One to seven category names, typical for the context; some repeat, so counts mean something."""
    count = 1 + int(rng.choice(MAX_OBJECTS, p=_NUM_OBJECTS_WEIGHTS))
    names, cumulative = _object_distribution(context.name)
    chosen: list[str] = []
    for _ in range(count):
        if chosen and rng.random() < _REPEAT_SHARE:
            chosen.append(chosen[int(rng.integers(len(chosen)))])
        else:
            place = np.searchsorted(cumulative, rng.random() * cumulative[-1])
            chosen.append(names[min(int(place), len(names) - 1)])
    return chosen


def _background(context: Context, rng: np.random.Generator) -> np.ndarray:
    """float32 [96, 96, 3]: wall over floor with soft gradients, a few plain shapes and grain."""
    size = IMAGE_SIZE
    upper = np.array(context.upper[rng.integers(len(context.upper))], np.float32)
    lower = np.array(context.lower[rng.integers(len(context.lower))], np.float32)
    upper, lower = upper + rng.normal(0, 9, 3), lower + rng.normal(0, 9, 3)
    horizon = int(rng.integers(34, 72))
    canvas = np.empty((size, size, 3), np.float32)
    canvas[:horizon] = upper
    canvas[horizon:] = lower
    for _ in range(int(rng.integers(0, 4))):
        left, top = rng.integers(0, size - 8, 2)
        width, height = rng.integers(8, 44, 2)
        canvas[top : top + height, left : left + width] += rng.normal(0, 10, 3)
    rows = np.linspace(-1, 1, size, dtype=np.float32)
    canvas += rng.normal(0, 8) * rows[:, None, None] + rng.normal(0, 5) * rows[None, :, None]
    canvas += rng.normal(0, 2.5, (size, size, 1)).astype(np.float32)
    return canvas


def _place(
    alpha: np.ndarray,
    instances: np.ndarray,
    full_areas: list[int],
    near: tuple[int, int] | None,
    rng: np.random.Generator,
) -> tuple[int, int, np.ndarray] | None:
    """A corner (left, top) and opaque mask such that no earlier object loses too much, or None.

    Free ground first; in a crowded scene close to `near`, the corner of the last object, and before it.
    """
    mask = alpha[..., 0] > _OPAQUE / 255.0
    height, width = mask.shape
    for attempt in range(_PLACE_ATTEMPTS):
        early = attempt < _PLACE_ATTEMPTS // 2
        left = int(rng.integers(0, IMAGE_SIZE - width + 1))
        top = int(rng.integers(0, IMAGE_SIZE - height + 1))
        least = 0.95 if early else _MIN_VISIBLE_APART
        if near is not None:
            least = MIN_VISIBLE
            if early:
                left, top = (int(at + rng.normal(0, _CROWD_SPREAD)) for at in near)
                left = min(max(left, 0), IMAGE_SIZE - width)
                top = min(max(top, 0), IMAGE_SIZE - height)
        window = instances[top : top + height, left : left + width]
        hidden = window[mask & (window >= 0)]
        if hidden.size == 0:
            return left, top, mask
        covered = np.bincount(hidden, minlength=len(full_areas))
        remaining = np.bincount(instances[instances >= 0], minlength=len(full_areas)) - covered
        if all(r >= least * full for r, full in zip(remaining, full_areas, strict=True)):
            return left, top, mask
    return None


def compose(categories: list[str], context: Context, style: str, rng: np.random.Generator) -> Scene:
    """Paint the named objects one over the other; an object that finds no room is left out."""
    canvas = _background(context, rng)
    instances = np.full((IMAGE_SIZE, IMAGE_SIZE), -1, np.int8)
    placed: list[tuple[str, str | None]] = []
    full_areas: list[int] = []
    last_colours: dict[str, str] = {}
    sizes = _SIZE_RANGE[min(len(categories), MAX_OBJECTS)]
    crowded = rng.random() < _CROWDED_SHARE
    near: tuple[int, int] | None = None
    for name in categories:
        cells = sprite_cells(name)
        cell = cells[int(rng.integers(len(cells)))]
        smallest, largest = _SMALL_SIZES if rng.random() < _SMALL_SHARE else sizes
        size = 2 * int(rng.integers(smallest // 2, largest // 2 + 1))
        color = _draw_colour(name, last_colours, rng)
        colour, alpha = _scaled(style, cell, size, bool(rng.integers(2)), color)
        spot = _place(alpha, instances, full_areas, near, rng)
        if spot is None:
            continue
        left, top, mask = spot
        near = (left, top) if crowded else None
        height, width = mask.shape
        region = (slice(top, top + height), slice(left, left + width))
        canvas[region] = canvas[region] * (1 - alpha) + colour
        instances[region][mask] = len(placed)
        placed.append((name, color))
        full_areas.append(int(mask.sum()))
    brightness, contrast = rng.uniform(-10, 10), rng.uniform(0.92, 1.08)
    pixels = np.clip((canvas - 128) * contrast + 128 + brightness, 0, 255).astype(np.uint8)
    objects = tuple(
        _measure(name, instances == number, full, color)
        for number, ((name, color), full) in enumerate(zip(placed, full_areas, strict=True))
    )
    return Scene(context.name, style, objects, pixels, instances)


def _draw_colour(name: str, last_colours: dict[str, str], rng: np.random.Generator) -> str | None:
    """A colour for a category that has them; mostly that of the last one, so that "two red cars" occur."""
    if name not in COLOURED:
        return None
    if name not in last_colours or rng.random() >= _SAME_COLOUR_SHARE:
        last_colours[name] = list(COLOURS)[int(rng.integers(len(COLOURS)))]
    return last_colours[name]


def _measure(name: str, mask: np.ndarray, full_area: int, color: str | None) -> SceneObject:
    """COCO's numbers of one object from its visible mask, bool [96, 96]."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    bbox = (left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1)
    area = int(mask.sum())
    return SceneObject(BY_NAME[name].name, bbox, area, area / full_area, color)


def make_scene(seed: int, split: str, index: int) -> Scene:
    """Scene number `index` of a split; the held-out style is used in its own split only."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {SPLITS}")
    rng = scene_rng(seed, split, index)
    context = CONTEXTS[int(rng.integers(len(CONTEXTS)))]
    style = UNSEEN_STYLE
    if split != "test_unseen_style":
        style = TRAIN_STYLES[int(rng.integers(len(TRAIN_STYLES)))]
    return compose(draw_categories(context, rng), context, style, rng)
