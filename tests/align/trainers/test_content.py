"""Content digests: they change with every weight, pixel and setting, and with nothing else."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from align.models.loading import ModelSection, load_model, load_processor
from align.trainers.content import (
    model_scope,
    parameters_digest,
    pixels_digest,
    processor_digest,
    reference_weights,
)


@pytest.fixture(scope="module")
def section(base_checkpoint: Path) -> ModelSection:
    return ModelSection(path=str(base_checkpoint), dtype="float32")


@pytest.fixture(scope="module")
def model(section: ModelSection) -> Any:
    return load_model(section)


def test_pixels_not_files_are_the_identity_of_an_image(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2), (10, 20, 30))
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.bmp")
    digests = {pixels_digest(Image.open(tmp_path / name).convert("RGB")) for name in ("a.png", "b.bmp")}
    assert len(digests) == 1
    turned = Image.new("RGB", (2, 4), (10, 20, 30))
    touched = image.copy()
    touched.putpixel((3, 1), (10, 20, 31))
    assert len(digests | {pixels_digest(turned), pixels_digest(touched)}) == 3


def test_a_processor_setting_changes_the_digest(section: ModelSection) -> None:
    processor: Any = load_processor(section)
    before = processor_digest(processor)
    assert processor_digest(load_processor(section)) == before
    processor.image_processor.image_mean = [0.5, 0.5, 0.4]
    assert processor_digest(processor) != before


def test_one_weight_bit_changes_the_digest_and_a_training_adapter_does_not(model: Any) -> None:
    from peft import LoraConfig, get_peft_model

    plain = reference_weights(model)
    assert plain == parameters_digest(model)
    wrapped = get_peft_model(copy.deepcopy(model), LoraConfig(target_modules=r".*language.*q_proj"))
    before = reference_weights(wrapped)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data.fill_(0.5)
    assert reference_weights(wrapped) == before
    weight = wrapped.get_parameter("base_model.model.lm_head.weight")
    bits = weight.data.view(torch.int32)
    bits[0, 0] ^= 1
    assert reference_weights(wrapped) != before


def test_a_frozen_ref_adapter_belongs_to_the_reference(model: Any) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=r".*language.*q_proj")
    wrapped = get_peft_model(copy.deepcopy(model), config)
    wrapped.add_adapter("ref", config)
    before = reference_weights(wrapped)
    changed = {name: p for name, p in wrapped.named_parameters() if ".ref." in name}
    assert changed
    next(iter(changed.values())).data.add_(1)
    assert reference_weights(wrapped) != before


def test_the_scope_names_attention_and_dtype_but_no_place(section: ModelSection, model: Any) -> None:
    processor = load_processor(section)
    scope = model_scope(model, "w", processor, "no")
    assert model_scope(model, "w", processor, "bfloat16") != scope
    moved = copy.deepcopy(model)
    moved.config._name_or_path = "elsewhere"
    assert model_scope(moved, "w", processor, "no") == scope
    moved.set_attn_implementation("eager")
    assert model_scope(moved, "w", processor, "no") != scope
    assert model_scope(copy.deepcopy(model).bfloat16(), "w", processor, "no") != scope
