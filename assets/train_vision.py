"""Step 1 of the base: the vision tower learns what each patch shows, and how many, where, of which colour.

    python -m assets.train_vision WORK_DIR --num_steps 1000

A patch has four labels (`LABEL_KINDS`): its category or background, how often the picture shows that
category, the third of the picture that holds its object's centre, and the object's colour. What the tower
is not asked for, its features do not carry, and the decoder cannot say: labels of the category alone gave a
base that could not count.

Writes ``vision.pt`` (tower, label head, optimisers, step) into WORK_DIR, resumes from it, and
appends to ``log.jsonl``. Scene numbers follow from the step, so a resumed run sees what an
uninterrupted one would.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import CLIPVisionModel, LlavaForConditionalGeneration

from assets.architecture import IMAGE_MEAN, IMAGE_STD, PATCH_SIZE, vision_config
from assets.muon import Muon
from data_tools.scenes.categories import CATEGORIES, CONTEXTS
from data_tools.scenes.colours import COLOURS
from data_tools.scenes.language import PLACES
from data_tools.scenes.render import (
    IMAGE_SIZE,
    MAX_OBJECTS,
    TRAIN_STYLES,
    Scene,
    compose,
    make_scene,
    scene_rng,
)

NUM_LABELS = len(CATEGORIES) + 1
BACKGROUND = len(CATEGORIES)
LABEL_OF = {category.name: number for number, category in enumerate(CATEGORIES)}
COLOUR_NAMES = tuple(COLOURS)
MANY = 4
"""Numbers from here on are one label."""
LABEL_KINDS = {"category": NUM_LABELS, "number": MANY, "place": len(PLACES), "color": len(COLOURS)}
"""Kind of label -> how many there are; the columns of `patch_targets`."""
NUMBER_WEIGHTS = (0.6, 1.0, 1.5, 1.5)
"""Most things are there once."""
ANCHOR_LAYER = 4
"""Layers after which category and anchor are asked for already, so that those above can count anchors."""
UNKNOWN = -100
"""No label: number, place and colour of background, and the colour of what comes in one look."""
MIN_PATCH_SHARE = 0.15
"""Share of a patch's pixels that an object must cover to name the patch."""


class PatchLabeller(nn.Module):
    """The tower with a linear head of all labels on what the connector will read."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = CLIPVisionModel(vision_config())
        self.norm = nn.LayerNorm(192)
        self.head = nn.Linear(192, sum(LABEL_KINDS.values()))
        self.early_norm = nn.LayerNorm(192)
        self.early_head = nn.Linear(192, NUM_LABELS + 2)

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """float32 [B, 64, 192]: last layer before `post_layernorm`, CLS dropped."""
        return self.tower(pixel_values).last_hidden_state[:, 1:]

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits float32 [B, 64, labels] a kind, then early category and anchor, of pixels [B, 3, 96, 96]."""
        layers = self.tower(pixel_values, output_hidden_states=True).hidden_states
        late = self.head(self.norm(layers[-1][:, 1:])).float()
        early = self.early_head(self.early_norm(layers[ANCHOR_LAYER][:, 1:])).float()
        return (*late.split(list(LABEL_KINDS.values()), -1), *early.split([NUM_LABELS, 2], -1))


def patch_targets(scene: Scene) -> np.ndarray:
    """int64 [64, 5], row by row: the labels of the object that covers most of each patch, and its anchor.

    Of an object's patches the one nearest to its centre is the anchor (1): a picture shows as many cups as
    it has anchors of cups.
    """
    side = scene.instances.shape[0] // PATCH_SIZE
    blocks = scene.instances.reshape(side, PATCH_SIZE, side, PATCH_SIZE)
    shares = np.stack([(blocks == i).mean((1, 3)) for i in range(len(scene.objects))])
    owner = np.where(shares.max(0) >= MIN_PATCH_SHARE, shares.argmax(0), -1)
    names = [item.category for item in scene.objects]
    labels = np.full((side, side, len(LABEL_KINDS) + 1), UNKNOWN)
    labels[..., 0] = BACKGROUND
    for number, item in enumerate(scene.objects):
        left, top, width, height = item.bbox
        across, down = left + width / 2, top + height / 2
        count = min(names.count(item.category), MANY) - 1
        place = min(int(across * len(PLACES) / IMAGE_SIZE), len(PLACES) - 1)
        color = UNKNOWN if item.color is None else COLOUR_NAMES.index(item.color)
        labels[owner == number] = (LABEL_OF[item.category], count, place, color, 0)
        rows, columns = np.nonzero(owner == number)
        if len(rows):
            centres = (np.stack([rows, columns]) + 0.5) * PATCH_SIZE - np.array([[down], [across]])
            nearest = int((centres**2).sum(0).argmin())
            labels[rows[nearest], columns[nearest], -1] = 1
    return labels.reshape(side * side, -1)


def uniform_scene(seed: int, index: int) -> Scene:
    """A crowded scene of any categories: rare ones get as many patches as frequent ones."""
    rng = scene_rng(seed, "uniform", index)
    kinds = rng.integers(len(CATEGORIES), size=MAX_OBJECTS)
    kinds[MAX_OBJECTS - int(rng.integers(4)) :] = kinds[0]  # one of them up to four times
    names = [CATEGORIES[i].name for i in kinds]
    context = CONTEXTS[int(rng.integers(len(CONTEXTS)))]
    return compose(names, context, TRAIN_STYLES[int(rng.integers(len(TRAIN_STYLES)))], rng)


def make_batch(seed: int, step: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [B, 96, 96, 3] and labels int64 [B, 64, 5]; half world scenes, half uniform."""
    first = step * size
    scenes = [
        make_scene(seed, "train", first + i) if i % 2 else uniform_scene(seed, first + i) for i in range(size)
    ]
    return np.stack([s.pixels for s in scenes]), np.stack([patch_targets(s) for s in scenes])


def _produce(queue: Any, seed: int, first_step: int, num_steps: int, size: int) -> None:
    torch.set_num_threads(1)
    for step in range(first_step, num_steps):
        queue.put(make_batch(seed, step, size))


def to_pixel_values(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [B, 96, 96, 3] -> normalised float32 [B, 3, 96, 96], as the saved processor does."""
    values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
    return (values - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def build_optimisers(model: PatchLabeller, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the encoder's matrices, AdamW for everything else."""
    matrices = [p for n, p in model.named_parameters() if ".layers." in n and p.ndim == 2]
    hidden = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in hidden]
    return [
        Muon(matrices, lr=lr),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def schedule(step: int, num_steps: int, warmup: int = 60, decay_share: float = 0.3) -> float:
    """Factor of the learning rate: warm-up, constant, then a straight line to nearly zero."""
    decay_steps = decay_share * num_steps
    return min((step + 1) / warmup, 1.0, max((num_steps - step) / decay_steps, 0.01))


def label_loss(logits: tuple[torch.Tensor, ...], targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each kind over the patches that have it; the early layer's half."""
    class_weights = torch.ones(NUM_LABELS)
    class_weights[BACKGROUND] = 0.4  # three patches of four are background

    def loss(values: torch.Tensor, column: int, weight: torch.Tensor | None = None) -> torch.Tensor:
        labels = targets[..., column].flatten()
        return nn.functional.cross_entropy(values.flatten(0, 1), labels, weight, ignore_index=UNKNOWN)

    category, number, place, color, early_category, anchor = logits
    late = loss(category, 0, class_weights) + loss(number, 1, torch.tensor(NUMBER_WEIGHTS))
    early = loss(early_category, 0, class_weights) + loss(anchor, 4)
    return late + 0.5 * (loss(place, 2) + loss(color, 3) + early)


@torch.no_grad()
def evaluate(model: PatchLabeller, seed: int, num_scenes: int = 256) -> dict[str, float]:
    """Shares of object patches labelled right on dev scenes, a kind."""
    scenes = [make_scene(seed, "dev", i) for i in range(num_scenes)]
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(to_pixel_values(np.stack([s.pixels for s in scenes])))
    targets = torch.from_numpy(np.stack([patch_targets(s) for s in scenes]))
    found = {}
    for kind, name in enumerate(LABEL_KINDS):
        known = (targets[..., 0] != BACKGROUND) & (targets[..., kind] != UNKNOWN)
        right = logits[kind].argmax(-1) == targets[..., kind]
        found[f"dev_{name}"] = round(right[known].float().mean().item(), 4)
    several = targets[..., 1] > 0
    anchors = several & (targets[..., 4] == 1)
    found["dev_number_of_several"] = round(
        (logits[1].argmax(-1) == targets[..., 1])[several].float().mean().item(), 4
    )
    found["dev_anchors_found"] = round((logits[-1].argmax(-1) == 1)[anchors].float().mean().item(), 4)
    return found


def save(path: Path, model: PatchLabeller, optimisers: list, step: int, seconds: float) -> None:
    """Write the checkpoint whole or not at all."""
    state = {
        "model": model.state_dict(),
        "optimisers": [o.state_dict() for o in optimisers],
        "step": step,
        "seconds": seconds,
    }
    torch.save(state, path.with_suffix(".partial"))
    path.with_suffix(".partial").rename(path)


def load_tower(model: PatchLabeller, checkpoint: Path) -> None:
    """Take the tower of a finished checkpoint, whose label head is not kept."""
    vlm = LlavaForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    model.tower.load_state_dict(vlm.model.vision_tower.state_dict())


def train(
    work_dir: Path, num_steps: int, batch_size: int, lr: float, seed: int, tower: Path | None = None
) -> None:
    """Train or resume up to `num_steps`, in bfloat16 autocast; `tower` is a checkpoint to start from."""
    torch.manual_seed(seed)
    model = PatchLabeller()
    if tower is not None:
        load_tower(model, tower)
    optimisers = build_optimisers(model, lr)
    work_dir.mkdir(parents=True, exist_ok=True)
    path, first_step, before = work_dir / "vision.pt", 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        first_step, before = state["step"], state["seconds"]
    context = mp.get_context("fork")
    queue = context.Queue(maxsize=6)
    args = (queue, seed, first_step, num_steps, batch_size)
    producer = context.Process(target=_produce, args=args, daemon=True)
    producer.start()
    start, losses = time.time(), []
    for step in range(first_step, num_steps):
        pixels, labels = queue.get()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(to_pixel_values(pixels))
        loss = label_loss(logits, torch.from_numpy(labels))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = lr * schedule(step, num_steps)
            optimiser.step()
            optimiser.zero_grad()
        losses.append(loss.item())
        seconds = before + time.time() - start
        if (step + 1) % 100 == 0 or step + 1 == num_steps:
            entry = {"stage": "vision", "step": step + 1, "seconds": round(seconds)}
            entry |= {"loss": round(float(np.mean(losses)), 4), **evaluate(model, seed)}
            losses.clear()
            with (work_dir / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
            save(path, model, optimisers, step + 1, seconds)
    producer.join()


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description="Train the base's vision tower.")
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--num_steps", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--tower", type=Path, help="start from the vision tower of this checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    train(args.work_dir, args.num_steps, args.batch_size, args.lr, args.seed, args.tower)


if __name__ == "__main__":
    main()
