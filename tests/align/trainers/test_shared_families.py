"""Every family that may share: equal to TRL in each step's loss and gradients, in fp32, over three epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    Gemma4ForCausalLM,
    Gemma4TextConfig,
)
from trl.trainer.dpo_trainer import DPOTrainer

from align.models.families import FAMILIES
from align.trainers import SharedPrefixDPOTrainer
from align.trainers.feature_store import FeatureStore
from align.trainers.self_check import compared_layers
from align.training.tensor_shards import TensorShards
from tests.align.trainers.trl_comparison import assert_equal, text_pairs, train, vision_pairs
from tests.twins import VARIANT_TWINS, Twins

LANGUAGE = r".*(language_model|text_model)\..*\.(q_proj|v_proj|down_proj|in_proj_\w+)"
EQUAL = {name for name, family in FAMILIES.items() if family.sharing.images == "equal"}
IMAGE_FAMILIES = sorted(EQUAL)


def load(folder: Path, kind: Any) -> Any:
    return kind.from_pretrained(folder, dtype="float32").requires_grad_(False).eval()


def compare(build: Any, processor: Any, pairs: Any, targets: str, tmp_path: Path, **options: Any) -> None:
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=targets)
    theirs, _ = train(DPOTrainer, build, processor, pairs, lora, tmp_path / "trl", **options)
    ours, trainer = train(SharedPrefixDPOTrainer, build, processor, pairs, lora, tmp_path / "ours", **options)
    assert trainer.shares, trainer.obstacles
    assert_equal(ours, theirs)


@pytest.mark.parametrize("name", [*IMAGE_FAMILIES, *VARIANT_TWINS])
def test_image_family(twins: Twins, name: str, tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained(twins(name))
    compare(
        lambda: load(twins(name), AutoModelForImageTextToText), processor, vision_pairs(5), LANGUAGE, tmp_path
    )


@pytest.mark.parametrize("name", ["gemma4", "glm4v"])
def test_checkpointed_it_equals_what_is_not(twins: Twins, name: str, tmp_path: Path) -> None:
    """Keys that later layers read, and positions on three axes, are the same when a layer is run again."""
    processor = AutoProcessor.from_pretrained(twins(name))
    build = lambda: load(twins(name), AutoModelForImageTextToText)  # noqa: E731
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=LANGUAGE)
    arguments = (build, processor, vision_pairs(4), lora)
    once: dict[str, Any] = {"num_train_epochs": 1}
    theirs, _ = train(DPOTrainer, *arguments, tmp_path / "trl", **once)
    ours, trainer = train(
        SharedPrefixDPOTrainer, *arguments, tmp_path / "ours", gradient_checkpointing=True, **once
    )
    assert trainer.shares, trainer.obstacles
    assert_equal(ours, theirs)


@pytest.mark.parametrize("name", ["gemma3", "idefics2", "qwen2_vl", "qwen3_vl", "qwen3_5"])
def test_features_from_a_store_are_those_of_the_tower(twins: Twins, name: str, tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained(twins(name))
    build = lambda: load(twins(name), AutoModelForImageTextToText)  # noqa: E731
    arguments = (build, processor, vision_pairs(4), LoraConfig(r=4, target_modules=LANGUAGE))
    quick: dict[str, Any] = {"num_train_epochs": 2}
    plain, _ = train(SharedPrefixDPOTrainer, *arguments, tmp_path / "plain", **quick)
    store = FeatureStore(TensorShards(tmp_path / "features"), {}, ram_bytes=0)
    stored, _ = train(
        SharedPrefixDPOTrainer, *arguments, tmp_path / "stored", ours={"feature_store": store}, **quick
    )
    assert_equal(stored, plain)
    assert store.misses == 4 and store.hits >= 4


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "qwen3_5", "gemma3"])
def test_no_one_or_two_images_a_pair(twins: Twins, name: str, tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained(twins(name))
    pairs = vision_pairs(6, images=None)
    compare(lambda: load(twins(name), AutoModelForImageTextToText), processor, pairs, LANGUAGE, tmp_path)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3_5"])
def test_text_only(twins: Twins, name: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(twins(name))
    targets = r".*\.(q_proj|v_proj|down_proj|in_proj_\w+)"
    options: dict[str, Any] = {"max_length": 30}
    build = lambda: load(twins(name), AutoModelForCausalLM)  # noqa: E731
    compare(build, tokenizer, text_pairs(7), targets, tmp_path, **options)


def test_a_copy_holds_the_layers_whose_keys_others_read(twins: Twins, tmp_path: Path) -> None:
    """Gemma 4 as published: between the first layers and the last stand those that the last ones read."""
    config = AutoConfig.from_pretrained(twins("gemma4")).text_config.to_dict()
    kinds = ["sliding_attention", "sliding_attention", "full_attention"] * 4
    config |= {"num_hidden_layers": 12, "layer_types": kinds, "num_kv_shared_layers": 3}
    for derived in ("model_type", "architectures", "per_layer_config"):
        config.pop(derived, None)

    def build() -> Any:
        torch.manual_seed(0)
        model = Gemma4ForCausalLM(Gemma4TextConfig(**config)).bfloat16()
        return model.requires_grad_(False).eval()

    assert compared_layers(build().get_decoder()) == [0, 1, 2, 7, 4, 8, 6, 7, 11]
    tokenizer = AutoTokenizer.from_pretrained(twins("gemma4"))
    lora = LoraConfig(r=4, target_modules=r".*\.(q_proj|k_proj|down_proj)")
    _, trainer = train(
        SharedPrefixDPOTrainer, build, tokenizer, text_pairs(4), lora, tmp_path, num_train_epochs=1
    )
    assert trainer.shares, trainer.obstacles
