"""Train the same pairs with TRL's trainer and with ours, and compare every step."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from transformers import TrainerCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

from align.inputs.trained_text import renders_apart
from align.trainers.pair_collator import ServedPairs

WORDS = ["a", "red", "cat", "sits", "on", "the", "small", "table", "near", "two", "dogs", "and", "one", "cup"]


@dataclass
class Record:
    """What each step logged, and the gradients before each update."""

    losses: list[float] = field(default_factory=list)
    logs: list[dict[str, float]] = field(default_factory=list)
    gradients: list[dict[str, torch.Tensor]] = field(default_factory=list)


class Recorder(TrainerCallback):
    def __init__(self) -> None:
        self.record = Record()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        trained = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        self.record.gradients.append({name: grad.clone() for name, grad in trained.items()})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.record.losses.append(logs["loss"])
            self.record.logs.append(dict(logs))


def text(generator: random.Random, low: int, high: int) -> str:
    return " ".join(generator.choices(WORDS, k=generator.randint(low, high)))


def vision_pairs(count: int, seed: int = 0, images: int | None = 1, side: int = 80) -> Dataset:
    """Ragged pairs with pictures of different shapes; `images=None` draws 0, 1 or 2 a pair."""
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        wanted = generator.randint(0, 2) if images is None else images
        rows.append(
            {
                "images": [_picture(generator, side) for _ in range(wanted if number else max(1, wanted))],
                "prompt": [{"role": "user", "content": text(generator, 1, 12)}],
                "chosen": [{"role": "assistant", "content": text(generator, 1, 20)}],
                "rejected": [{"role": "assistant", "content": text(generator, 1, 20)}],
            }
        )
    return as_pairs(rows)


def as_pairs(rows: list[dict[str, Any]]) -> Dataset:
    """A dataset of rows with pictures."""
    return Dataset.from_list(rows)


def text_pairs(count: int, seed: int = 0) -> Dataset:
    """Ragged pairs without pictures."""
    generator = random.Random(seed)
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": text(generator, 1, 20)}],
                "chosen": [{"role": "assistant", "content": text(generator, 1, 15)}],
                "rejected": [{"role": "assistant", "content": text(generator, 1, 15)}],
            }
            for _ in range(count)
        ]
    )


def train(
    kind: type,
    build: Callable[[], Any],
    processor: Any,
    pairs: Dataset,
    lora: Any,
    out: Path,
    ours: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[Record, Any]:
    """Train with `kind` (TRL's trainer or ours) and return the record and the trainer.

    Args:
        ours: further arguments of our trainer's constructor.
        options: of DPOConfig.
    """
    settings: dict[str, Any] = {
        "output_dir": str(out),
        "use_cpu": True,
        "num_train_epochs": 3,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "max_length": None,
        "seed": 3,
        "router_aux_loss_coef": 0.0,
        **options,
    }
    recorder = Recorder()
    torch.manual_seed(settings["seed"])  # of the adapter, which PEFT draws before the trainer seeds
    trainer = kind(
        model=build(),
        args=DPOConfig(**settings),
        train_dataset=pairs,
        processing_class=processor,
        peft_config=lora,
        callbacks=[recorder],
        **(ours or {}),
    )
    collator: Any = trainer.data_collator
    if type(collator) is DataCollatorForVisionPreference and renders_apart(processor):
        trainer.data_collator = ServedPairs(**vars(collator))  # TRL's, given texts as they are served
    trainer.train()
    return recorder.record, trainer


def assert_equal(ours: Record, theirs: Record) -> None:
    """Losses within 1e-5, each gradient within 1e-4 of its size, metrics within rounding."""
    assert len(ours.losses) == len(theirs.losses) > 0
    for step, (mine, wanted) in enumerate(zip(ours.losses, theirs.losses, strict=True)):
        assert abs(mine - wanted) <= 1e-5, f"step {step}: loss {mine} against {wanted}"
    for step, (mine, wanted) in enumerate(zip(ours.gradients, theirs.gradients, strict=True)):
        assert mine.keys() == wanted.keys()
        scale = max(float(grad.norm()) for grad in wanted.values())
        assert scale > 0
        for name, grad in wanted.items():
            off = float((mine[name] - grad).norm())
            # A gradient that is nothing but rounding has no relative error worth the name. A's is one in
            # the second step: Adam's first takes the signs of B's smallest gradients, which rounding decides,
            # and no two processors round alike (1.4e-6 beside gradients of 0.6 on one of them).
            assert off <= 1e-4 * max(float(grad.norm()), 5e-2 * scale), f"step {step}: {name} off by {off}"
    for mine, wanted in zip(ours.logs, theirs.logs, strict=True):
        for name in wanted.keys() - {"epoch", "grad_norm", "total_flos", "step"}:
            assert abs(mine[name] - wanted[name]) <= 1e-3 * max(1.0, abs(wanted[name])), name


def _picture(generator: random.Random, side: int) -> Image.Image:
    size = (generator.randint(side // 2, side), generator.randint(side // 2, side))
    noise = bytes(generator.randrange(256) for _ in range(48))
    return Image.frombytes("RGB", (4, 4), noise).resize(size, Image.Resampling.BICUBIC)
