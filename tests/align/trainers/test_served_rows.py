"""Rows whose template knows thoughts: both trainers, shared and in TRL's way, without generation markers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from align.inputs.training_data import DataSection, lazy_dataset
from align.models.thinking import set_thinking
from align.rows.schema import PreferenceRow, SFTRow
from tests.align.adapter_folders import lora_targets
from tests.twins import Twins
from tests.twins.thinking import TEMPLATES, set_template

ASK = {"role": "user", "content": "How many dogs do you see?"}
THOUGHT = {"role": "assistant", "content": "Three.", "reasoning": "One, two, three."}
BARE = {"role": "assistant", "content": "There is one."}
SETTINGS: dict[str, Any] = {
    "max_length": None,
    "gradient_checkpointing": False,
    "bf16": False,
    "use_cpu": True,
    "learning_rate": 1e-2,
    "max_steps": 2,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "per_device_train_batch_size": 2,
}


def _losses(trained: Any) -> list[float]:
    trained.train()
    return [entry["loss"] for entry in trained.state.log_history if "loss" in entry]


def _parts(twins: Twins, family: str) -> dict[str, Any]:
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = twins("qwen3_vl")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).requires_grad_(False)
    processor = AutoProcessor.from_pretrained(folder)
    set_template(processor, family)
    set_thinking(processor, True)
    lora = LoraConfig(r=4, target_modules=lora_targets(model, ["language"]), lora_dropout=0.0)
    return {"model": model, "processing_class": processor, "peft_config": lora}


def _dataset(cls: Any, rows: list[dict[str, Any]], folder: Path, processor: Any) -> Any:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    read = [cls.model_validate({"id": str(k), "images": ["a.png"], **row}) for k, row in enumerate(rows)]
    return lazy_dataset(read, DataSection(path=folder / "rows.jsonl", image_root=folder), processor)


@pytest.mark.parametrize("family", TEMPLATES)
def test_instruction_rows_train_alike_shared_and_apart(twins: Twins, family: str, tmp_path: Path) -> None:
    from trl.trainer.sft_config import SFTConfig

    from align.trainers.sft_trainer import SharedImageSFTTrainer
    from align.trainers.sharing import SharingConfig

    rows = [{"messages": [ASK, THOUGHT]}, {"messages": [{**ASK, "content": "What?"}, BARE]}]
    losses = []
    for mode in ("auto", "off"):
        args = SFTConfig(str(tmp_path), assistant_only_loss=True, **SETTINGS)
        parts = _parts(twins, family)
        data = _dataset(SFTRow, rows, tmp_path, parts["processing_class"])
        trainer = SharedImageSFTTrainer(
            args=args, train_dataset=data, sharing=SharingConfig(mode=mode), **parts
        )
        assert trainer.shares == (mode == "auto") and args.assistant_only_loss
        losses.append(_losses(trainer))
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize("family", TEMPLATES)
def test_pairs_train_alike_shared_and_apart(twins: Twins, family: str, tmp_path: Path) -> None:
    from trl.trainer.dpo_config import DPOConfig

    from align.trainers.dpo_trainer import SharedPrefixDPOTrainer
    from align.trainers.sharing import SharingConfig

    rows = [
        {"prompt": [ASK], "chosen": [THOUGHT], "rejected": [BARE]},
        {"prompt": [ASK], "chosen": [BARE], "rejected": [{**BARE, "content": "Two."}]},
    ]
    losses = []
    for mode in ("auto", "off"):
        parts = _parts(twins, family)
        trainer = SharedPrefixDPOTrainer(
            args=DPOConfig(str(tmp_path), **SETTINGS),
            train_dataset=_dataset(PreferenceRow, rows, tmp_path, parts["processing_class"]),
            sharing=SharingConfig(mode=mode),
            **parts,
        )
        assert trainer.shares == (mode == "auto")
        losses.append(_losses(trainer))
    assert losses[0][0] == pytest.approx(0.693147, abs=1e-4)
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
