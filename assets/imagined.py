"""Scenes that exist in words only, for the stages of the base that train without pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from assets.train_vision import BACKGROUND, COLOUR_NAMES, LABEL_KINDS, MANY, UNKNOWN
from data_tools.scenes.categories import CATEGORIES
from data_tools.scenes.colours import COLOURED
from data_tools.scenes.language import PLACES, Mention

NUM_SLOTS = 18
NUM_NAMES = 12
"""Categories there and absent ones, together: as many as dense items."""
_COUNT_SHARES = (0.55, 0.25, 0.12, 0.08)
_MAX_OBJECTS = 9
_SAME_COLOUR_SHARE = 0.7


@dataclass(frozen=True)
class ImaginedScene:
    """What is there, as captions order it, and what is not."""

    told: tuple[Mention, ...]
    objects: np.ndarray
    """int64 [objects, 4]: labels as the first four columns of `patch_targets`."""
    absent: tuple[str, ...]


def imagine(most: int, rng: np.random.Generator) -> ImaginedScene:
    """Up to `most` categories of one to four objects each."""
    order = rng.permutation(len(CATEGORIES))
    told, rows = [], []
    for label in sorted(order[: int(rng.integers(1, most + 1))]):
        name = CATEGORIES[label].name
        count = 1 + int(rng.choice(MANY, p=_COUNT_SHARES))
        if len(rows) + count > _MAX_OBJECTS:
            continue
        places = rng.integers(len(PLACES), size=count)
        colours = np.full(count, UNKNOWN)
        if name in COLOURED:
            colours = rng.integers(len(COLOUR_NAMES), size=count)
            if rng.random() < _SAME_COLOUR_SHARE:
                colours[:] = colours[0]
        rows += [(label, count - 1, place, color) for place, color in zip(places, colours, strict=True)]
        place = PLACES[int(places[0])] if count == 1 else None
        shared = name in COLOURED and len(set(colours.tolist())) == 1
        told.append(Mention(name, count, place, COLOUR_NAMES[int(colours[0])] if shared else None))
    present = {mention.category for mention in told}
    absent = [CATEGORIES[i].name for i in order[most:] if CATEGORIES[i].name not in present]
    return ImaginedScene(tuple(told), np.array(rows), tuple(absent[: NUM_NAMES - len(told)]))


def spread(objects: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slot labels int64 [NUM_SLOTS, 4]: each object in one or two random slots, fillers elsewhere."""
    slots = np.full((NUM_SLOTS, len(LABEL_KINDS)), UNKNOWN)
    slots[:, 0] = BACKGROUND
    cells, filled = rng.permutation(NUM_SLOTS), 0
    for row in objects:
        copies = int(rng.integers(1, 3))
        slots[cells[filled : filled + copies]] = row
        filled += copies
    return slots
