"""A dev check in two processes, and on a quantised base: the log is that of one process, nobody hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from align import sft
from align.config.recipe import load_recipe
from align.digest import digest_file
from align.errors import AlignError
from tests.align.dev_check.test_dev_check import WEIGHTS, dev_section, log_of
from tests.align.trainers.test_two_processes import LAUNCH
from tests.repository import REPO
from tests.training_recipes import sft_recipe, sft_rows
from tests.twins import Twins

KEEP = {"most": "heldout_loss_drop", "patience": 2}


def _section(world: Path) -> dict[str, Any]:
    return dev_section(world, every=2, max_new_tokens=6, batch_size=3, heldout={"share": 0.25})


def _trained(processes: int, run_dir: Path, base: Path, world: Path) -> Path:
    recipe = sft_recipe(
        run_dir,
        base,
        world,
        sft_rows(world)[:16],
        dev=_section(world),
        keep=KEEP,
        lora__lora_dropout=0.0,
        trainer__per_device_train_batch_size=4 // processes,
        trainer__max_steps=4,
    )
    command = [sys.executable, "-m", "align", "sft", str(recipe)]
    if processes > 1:
        options = ["--num_processes", str(processes), "--dynamo_backend", "no", "--main_process_port", "0"]
        command = [sys.executable, *LAUNCH, *options, "-m", "align", "sft", str(recipe)]
    path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, cwd=REPO, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return run_dir / "sft"


@pytest.mark.slow
def test_two_processes_write_the_log_of_one(twins: Twins, tiny_world: Path, tmp_path: Path) -> None:
    one, two = (_trained(n, tmp_path / str(n), twins("llava"), tiny_world) for n in (1, 2))
    logs = [log_of(one), log_of(two)]
    assert [line["step"] for line in logs[0]] == [line["step"] for line in logs[1]] == [0, 2, 4]
    for mine, theirs in zip(*logs, strict=True):
        for name, change in mine["all"].items():
            assert theirs["all"][name] == pytest.approx(change, abs=2e-3), (mine["step"], name)
    answers = [log_of(folder, "logs/dev_answers/step-0.jsonl") for folder in (one, two)]
    assert answers[0] == answers[1]
    kept = [
        json.loads((folder / "manifest.json").read_text())["metrics"]["kept"]["step"] for folder in (one, two)
    ]
    assert kept[0] == kept[1]


def test_on_a_quantised_base_training_is_as_without(twins: Twins, tiny_world: Path, tmp_path: Path) -> None:
    folders = []
    for name in ("with", "without"):
        rows = sft_rows(tiny_world)
        asked: dict[str, Any] = {"dev": dev_section(tiny_world, every=1, max_new_tokens=4)}
        recipe = sft_recipe(
            tmp_path / name,
            twins("llava"),
            tiny_world,
            rows[:8],
            model__quantization="nf4",
            trainer__max_steps=2,
            **(asked if name == "with" else {}),
        )
        folders.append(sft.run(load_recipe(sft.Recipe, recipe)).final)
    assert digest_file(folders[0] / WEIGHTS) == digest_file(folders[1] / WEIGHTS)
    assert [line["step"] for line in log_of(folders[0])] == [0, 1, 2]


def test_sharded_weights_are_refused_with_a_way_out() -> None:
    from accelerate.utils import DistributedType

    from align.dev_check.check import DevCheck

    class Accelerator:
        distributed_type = DistributedType.FSDP

    class Trainer:
        accelerator = Accelerator()

    dev: Any = object.__new__(DevCheck)
    with pytest.raises(AlignError, match=r"weights are sharded(.|\n)*recipes/accelerate/ddp\.yaml") as caught:
        dev.attach(Trainer(), None)
    assert "leave dev and keep out" in str(caught.value)
    assert (REPO / "recipes" / "accelerate" / "ddp.yaml").is_file()
