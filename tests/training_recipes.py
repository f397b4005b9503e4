"""Rows and recipes for the training tests: the tiny world's captions, a few steps, float32."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from align.rows.schema import BaseRow, Message, PreferenceRow, SFTRow, write_rows

PROMPT = "Describe the image."
_TRAINER = {
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "bf16": False,
    "gradient_checkpointing": False,
    "max_steps": 8,
    "save_steps": 2,
}


def captions(world: Path, split: str = "train") -> list[tuple[str, str]]:
    """(image path relative to images/, its first caption), in file order."""
    found = json.loads((world / "annotations" / f"captions_{split}.json").read_text())
    files = {image["id"]: image["file_name"] for image in found["images"]}
    first: dict[int, str] = {}
    for annotation in found["annotations"]:
        first.setdefault(annotation["image_id"], annotation["caption"])
    return [(f"{split}/{Path(files[key]).name}", caption) for key, caption in sorted(first.items())]


def sft_rows(world: Path) -> list[SFTRow]:
    """One row an image; every third has a second question."""
    rows = []
    for index, (image, caption) in enumerate(captions(world)):
        turns = [Message(role="user", content=PROMPT), Message(role="assistant", content=caption)]
        if index % 3 == 0:
            turns += [
                Message(role="user", content="Is there a cat?"),
                Message(role="assistant", content="no"),
            ]
        rows.append(SFTRow(id=f"row{index}", images=[image], messages=turns))
    return rows


def preference_rows(world: Path) -> list[PreferenceRow]:
    """The image's own caption against the next image's."""
    found = captions(world)
    return [
        PreferenceRow(
            id=f"pair{index}",
            images=[image],
            prompt=[Message(role="user", content=PROMPT)],
            chosen=[Message(role="assistant", content=caption)],
            rejected=[Message(role="assistant", content=found[(index + 1) % len(found)][1] + " And a dog.")],
        )
        for index, (image, caption) in enumerate(found)
    ]


def sft_recipe(run_dir: Path, base: Path, world: Path, rows: Any = None, **changes: Any) -> Path:
    """Write rows and an SFT recipe; `changes` are `section__key=value`."""
    return _recipe(run_dir, "sft", base, world, sft_rows(world) if rows is None else rows, changes)


def dpo_recipe(run_dir: Path, base: Path, world: Path, rows: Any = None, **changes: Any) -> Path:
    """Write rows and a DPO recipe; `changes` are `section__key=value`."""
    return _recipe(run_dir, "dpo", base, world, preference_rows(world) if rows is None else rows, changes)


def kill_after_first_checkpoint(stage: str, recipe: Path, work: Path) -> None:
    """Run the stage in a process of its own and SIGKILL it when its first checkpoint is whole."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "align.cli", stage, str(recipe)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if list(work.glob("scratch/checkpoints/checkpoint-*/whole.json")):
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output.decode()
    assert work.is_dir(), "the stage had ended before it was killed"


def _recipe(
    run_dir: Path, stage: str, base: Path, world: Path, rows: Sequence[BaseRow], changes: dict[str, Any]
) -> Path:
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / f"{stage}_rows.jsonl"
    write_rows(path, rows)
    values: dict[str, Any] = {
        "run_dir": str(run_dir),
        "model": {"path": str(base), "dtype": "float32"},
        "data": {"path": str(path), "image_root": str(world / "images")},
        "lora": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1},
        "trainer": dict(_TRAINER),
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            values[section][name] = value
        else:
            values[section] = value
    recipe = run_dir / f"{stage}.yaml"
    OmegaConf.save(OmegaConf.create(values), recipe)
    return recipe
