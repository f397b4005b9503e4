"""Pictures that make a row's chosen answer wrong or unfounded: made from its own, or retrieved."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from align.digest import digest_json
from align.errors import AlignError
from align.inputs.images import open_image, resolve_image
from align.models.loading import ModelSection
from align.progress import track
from align.rows.schema import PreferenceRow
from align.trainers.objectives.recipe import Conditional
from data_tools.decontaminate.perceptual import image_hash
from data_tools.negatives.similar import colour_layout, describe_all, image_features, neighbours

_FOLDER = "worse"
_NEIGHBOURS = 20
"""How many of the nearest are looked at until one is no near-duplicate."""


def made_images(
    rows: Sequence[PreferenceRow], root: Path, out: Path, conditional: Conditional, seed: int
) -> dict[str, list[str]]:
    """Write a worse picture for each picture of each row, and link the originals beside them.

    Args:
        conditional: which, as the objective that makes such pictures while training.
        out: becomes the image root: originals under their own paths, the others below `worse/`.

    Returns:
        Row id -> paths relative to `out`.

    Raises:
        AlignError: a missing image, or originals that lie in a folder `worse` themselves.
    """
    from align.trainers.image_negatives import image_negative

    found: dict[str, list[str]] = {}
    (out / _FOLDER).mkdir(parents=True, exist_ok=True)
    for row in track(rows, "making pictures", len(rows)):
        for index, name in enumerate(row.images):
            if Path(name).parts[0] == _FOLDER:
                raise AlignError(
                    f"{name} would mix with the made pictures", where=row.id, fix="rename the folder"
                )
            path = resolve_image(root, name)
            worse = image_negative(conditional, open_image(path), seed, row.id, index)
            relative = f"{_FOLDER}/{digest_json([row.id, index])[:24]}.png"
            worse.save(out / relative)
            _link(path, out / name)
            found.setdefault(row.id, []).append(relative)
    return found


def retrieved_images(
    rows: Sequence[PreferenceRow], root: Path, model: ModelSection | None, duplicate_bits: int
) -> dict[str, list[str]]:
    """The most similar other picture of each picture, among all pictures of the rows.

    Returns:
        Row id -> paths relative to `root`; rows all of whose neighbours are near-duplicates are missing.
    """
    names = sorted({name for row in rows for name in row.images})
    paths = [resolve_image(root, name) for name in names]
    if len(names) < 2:
        return {}
    describe = colour_layout if model is None else image_features(model)
    features = describe_all(paths, describe)
    hashes = np.stack([image_hash(open_image(path)) for path in paths])
    most = min(_NEIGHBOURS, len(names) - 1)
    nearest = neighbours(features, np.arange(len(names)), most)
    partner: dict[str, str] = {}
    for place, others in enumerate(nearest):
        others = others[others >= 0]
        bits = np.bitwise_count(hashes[others] ^ hashes[place]).sum(axis=1)
        different = others[bits > duplicate_bits]
        if len(different):
            partner[names[place]] = names[int(different[0])]
    return {
        row.id: [partner[name] for name in row.images]
        for row in rows
        if all(name in partner for name in row.images)
    }


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        os.link(source, target)
        return
    shutil.copyfile(source, target)
