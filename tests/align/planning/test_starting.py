"""`align init`: recipes that validate, made for the GPU that was named, and nothing written over."""

from __future__ import annotations

from pathlib import Path

import pytest

from align import dpo, sft
from align.cli import main
from align.config.recipe import load_recipe
from tests.twins import Twins


def test_the_gpu_decides_and_the_files_run(
    twins: Twins, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The twin's SFT fits 0.0345 GiB with one row a step, its DPO, of one row already, only in 4 bits."""
    folder = tmp_path / "recipes"
    words = ["init", str(twins("qwen2_vl")), "--out", str(folder), "--reserve", "0"]
    assert main([*words, "--gpu", "0.001"]) == 1
    assert "no way to train" in capsys.readouterr().err and not folder.exists()
    assert main([*words, "--gpu", "0.0345"]) == 0
    assert "dpo: QLoRA is chosen" in capsys.readouterr().out
    first = load_recipe(sft.Recipe, folder / "sft.yaml")
    trainer = first.trainer.given()
    assert first.model.quantization == "none"
    assert (trainer["per_device_train_batch_size"], trainer["gradient_accumulation_steps"]) == (1, 32)
    second = load_recipe(dpo.Recipe, folder / "dpo.yaml")
    assert second.model.quantization == "nf4" and second.trainer.given()["optim"] == "paged_adamw_8bit"
    assert "#   LoRA needs 0.04 of 0.0345 GiB" in (folder / "dpo.yaml").read_text()
    assert main(["run", str(folder / "pipeline.yaml"), "--dry-run"]) == 0
    assert "dpo_merged" in capsys.readouterr().out
    assert main([*words, "--gpu", "0.0345"]) == 1
    assert "--force" in capsys.readouterr().err
