"""Scenes with their patch features computed once, for the stages that train on a frozen tower."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from assets.train_vision import PatchLabeller, load_tower, patch_targets, to_pixel_values, uniform_scene
from data_tools.scenes.render import SceneObject, make_scene

FIRST_INDEX = 2_000_000
"""Language scenes start here: the tower has not been trained on them."""


@dataclass
class ImageBank:
    """Scenes whose features were computed once."""

    contexts: list[str]
    objects: list[tuple[SceneObject, ...]]
    features: torch.Tensor
    """float16 [N, 64, 192]."""
    labels: torch.Tensor
    """int64 [N, 64, 4], of `patch_targets`."""
    num_world: int
    """The first `num_world` are world scenes; the others are uniform ones."""


@torch.no_grad()
def build_bank(labeller: PatchLabeller, num_world: int, num_uniform: int, seed: int) -> ImageBank:
    """Render scenes and keep their patch features."""
    labeller.eval()
    contexts, objects, features, labels = [], [], [], []
    total, chunk = num_world + num_uniform, 128
    for first in range(0, total, chunk):
        scenes = [
            make_scene(seed, "train", FIRST_INDEX + i)
            if i < num_world
            else uniform_scene(seed, FIRST_INDEX + i)
            for i in range(first, min(first + chunk, total))
        ]
        pixels = to_pixel_values(np.stack([s.pixels for s in scenes]))
        with torch.autocast("cpu", torch.bfloat16):
            features.append(labeller.features(pixels).half())
        labels.append(torch.from_numpy(np.stack([patch_targets(s) for s in scenes])))
        contexts += [s.context for s in scenes]
        objects += [s.objects for s in scenes]
    return ImageBank(contexts, objects, torch.cat(features), torch.cat(labels), num_world)


def trained_labeller(work_dir: Path, checkpoint: Path | None) -> PatchLabeller:
    """The trained tower, from `vision.pt` or from a finished checkpoint (whose label head is not kept)."""
    labeller = PatchLabeller()
    if checkpoint is None:
        labeller.load_state_dict(torch.load(work_dir / "vision.pt", weights_only=True)["model"])
    else:
        load_tower(labeller, checkpoint)
    return labeller
