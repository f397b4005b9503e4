"""Pairs whose pictures stand inside the text and in a later turn train as TRL trains them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from PIL import Image
from transformers import AutoModelForImageTextToText
from trl.trainer.dpo_trainer import DPOTrainer

from align.inputs.training_data import DataSection, lazy_dataset
from align.models.loading import ModelSection, load_processor
from align.rows.messages import ImagePart, Message, TextPart
from align.rows.schema import PreferenceRow
from align.trainers import SharedPrefixDPOTrainer
from tests.align.adapter_folders import lora_targets
from tests.align.trainers.trl_comparison import assert_equal, train
from tests.twins import Twins

PROMPTS = [
    [
        Message(
            role="user", content=[TextPart(text="Is "), ImagePart(), TextPart(text=" older?"), ImagePart()]
        )
    ],
    [
        Message(role="user", content=[ImagePart(), TextPart(text="What is this?")]),
        Message(role="assistant", content="A cat."),
        Message(role="user", content=[TextPart(text="And this: "), ImagePart()]),
    ],
    [Message(role="user", content="Two of what?")],
]


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "idefics3"])
def test_pairs_train_as_trls(twins: Twins, tmp_path: Path, name: str) -> None:
    for number, colour in enumerate([(200, 30, 90), (20, 130, 90)]):
        Image.new("RGB", (60 + 12 * number, 44), colour).save(tmp_path / f"{number}.png")
    answers = [Message(role="assistant", content=text) for text in ("A small cat.", "Three big dogs.")]
    rows = [
        PreferenceRow(
            id=str(number),
            images=["0.png", "1.png"],
            prompt=prompt,
            chosen=[answers[0]],
            rejected=[answers[1]],
        )
        for number, prompt in enumerate(PROMPTS)
    ]
    processor = load_processor(ModelSection(path=str(twins(name)), dtype="float32"))
    section = DataSection(path=tmp_path / "rows.jsonl", image_root=tmp_path)
    pairs = lazy_dataset(rows, section, processor)

    def build() -> Any:
        model = AutoModelForImageTextToText.from_pretrained(twins(name), dtype=torch.float32)
        return model.requires_grad_(False).eval()

    target = lora_targets(build(), ["language"])
    arguments = (build, processor, pairs, LoraConfig(r=4, target_modules=target))
    options: dict[str, Any] = {"num_train_epochs": 1, "per_device_train_batch_size": 3, "learning_rate": 1e-3}
    theirs, _ = train(DPOTrainer, *arguments, tmp_path / "trl", **options)
    ours, trainer = train(SharedPrefixDPOTrainer, *arguments, tmp_path / "ours", **options)
    assert trainer.shares
    assert_equal(ours, theirs)
