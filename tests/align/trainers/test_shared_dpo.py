"""Shared-prefix DPO against TRL's: equal losses, gradients and metrics over three epochs in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import LlavaForConditionalGeneration
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference, DPOTrainer

from align.errors import AlignError
from align.trainers import SharedPrefixDPOTrainer, SharingConfig
from align.trainers.self_check import compared_bytes, compared_layers, float_copy
from tests.align.trainers.trl_comparison import as_pairs, assert_equal, train, vision_pairs
from tests.twins import Twins

LANGUAGE = r"model\.language_model\..*\.(q_proj|v_proj|up_proj)"


def llava(folder: Path) -> Any:
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def checkpoint(twins: Twins) -> Path:
    return twins("llava")


@pytest.fixture(scope="module")
def processor(checkpoint: Path) -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(checkpoint)


@pytest.mark.parametrize(
    ("targets", "attention", "options"),
    [
        (LANGUAGE, "split", {"gradient_checkpointing": False}),
        (LANGUAGE, "dense", {"gradient_checkpointing": True, "gradient_accumulation_steps": 2}),
        (rf"{LANGUAGE}|model\.vision_tower.*\.(q_proj|v_proj)", "auto", {"gradient_checkpointing": False}),
        (LANGUAGE, "auto", {"loss_type": ["sigmoid", "sft"], "ld_alpha": 0.5, "max_length": 90}),
    ],
    ids=["split", "dense, checkpointed, accumulated", "tower trains", "ld_alpha, truncated"],
)
def test_llava_equals_trl(
    checkpoint: Path,
    processor: Any,
    tmp_path: Path,
    targets: str,
    attention: Any,
    options: dict[str, Any],
) -> None:
    pairs = vision_pairs(5, seed=1)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=targets, lora_dropout=0.1)
    arguments = (lambda: llava(checkpoint), processor, pairs, lora)
    theirs, _ = train(DPOTrainer, *arguments, tmp_path / "trl", **options)
    extra = {"sharing": SharingConfig(attention=attention)}
    ours, trainer = train(SharedPrefixDPOTrainer, *arguments, tmp_path / "ours", ours=extra, **options)
    assert trainer.shares
    assert_equal(ours, theirs)


def test_full_fine_tuning_with_a_reference_model_equals_trl(
    checkpoint: Path, processor: Any, tmp_path: Path
) -> None:
    def build() -> Any:
        return llava(checkpoint).requires_grad_(True)

    arguments = (build, processor, vision_pairs(4, seed=3), None)
    options: dict[str, Any] = {"num_train_epochs": 1, "learning_rate": 1e-4}
    theirs, _ = train(DPOTrainer, *arguments, tmp_path / "trl", **options)
    ours, trainer = train(SharedPrefixDPOTrainer, *arguments, tmp_path / "ours", **options)
    assert trainer.shares and trainer.ref_model is not None
    assert_equal(ours, theirs)


class Memory:
    """Stores of log-probs and of features that count how often they are asked and filled."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.misses = 0

    def key(self, *content: Any) -> str:
        return repr(content)

    def get(self, key: str, lengths: Any = None) -> Any:
        self.misses += key not in self.kept
        return self.kept.get(key)

    def put(self, key: str, value: Any) -> None:
        self.kept[key] = value


def test_stores_change_nothing_and_are_filled_once(
    checkpoint: Path, processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = vision_pairs(5, seed=2)
    lora = LoraConfig(r=4, target_modules=LANGUAGE)
    arguments = (lambda: llava(checkpoint), processor, pairs, lora)
    theirs, _ = train(DPOTrainer, *arguments, tmp_path / "trl")
    references, features = Memory(), Memory()
    extra = {
        "reference_store": references,
        "feature_store": features,
        "image_digest": lambda image: repr((image.size, image.tobytes()[:48])),
    }
    options: dict[str, Any] = {"ours": extra, "dataloader_num_workers": 2, "dataloader_prefetch_factor": 4}
    ours, trainer = train(SharedPrefixDPOTrainer, *arguments, tmp_path / "ours", **options)
    assert_equal(ours, theirs)
    assert references.misses == features.misses == len(references.kept) == len(features.kept) == 5
    # A second run asks the reference and the tower nothing.
    monkeypatch.setattr(type(trainer.model.get_base_model().model), "get_image_features", None)
    extra = {**extra, "sharing": SharingConfig(self_check=False)}
    again, _ = train(SharedPrefixDPOTrainer, *arguments, tmp_path / "again", **{**options, "ours": extra})
    assert again.losses == ours.losses
    assert references.misses == features.misses == 5


def test_a_wrong_position_is_refused(
    checkpoint: Path, processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from align.trainers import shared_forward

    def shifted(model: Any, row: Any, grid: Any) -> torch.Tensor:
        return row.index + (row.branch[None] > 0)

    monkeypatch.setattr(shared_forward, "positions", shifted)
    lora = LoraConfig(r=4, target_modules=LANGUAGE)
    for dtype in (torch.float32, torch.bfloat16):

        def build(dtype: torch.dtype = dtype) -> Any:
            return llava(checkpoint).to(dtype)

        with pytest.raises(AlignError, match="differ from separate ones"):
            train(SharedPrefixDPOTrainer, build, processor, vision_pairs(2), lora, tmp_path)


def test_the_copy_in_fp32_shares_nothing_with_the_model(checkpoint: Path) -> None:
    model = llava(checkpoint).to(torch.bfloat16)
    copied = float_copy(model, torch.device("cpu"))
    assert all(weight.dtype == torch.float32 for weight in copied.parameters())
    assert sum(weight.nbytes for weight in copied.parameters()) == compared_bytes(model)
    theirs = dict(model.named_parameters())
    for name, weight in copied.named_parameters():
        assert (
            torch.equal(weight, theirs[name].float()) and weight.requires_grad == theirs[name].requires_grad
        )
    assert {weight.data_ptr() for weight in copied.parameters()}.isdisjoint(
        weight.data_ptr() for weight in model.parameters()
    )
    assert len(copied.get_decoder().layers) == len(compared_layers(model.get_decoder()))


def test_the_frozen_tower_is_run_once_a_batch_and_never_backwards(
    checkpoint: Path, processor: Any, tmp_path: Path
) -> None:
    forwards: list[int] = []
    model = llava(checkpoint)
    patches = model.model.vision_tower.embeddings.patch_embedding
    patches.register_forward_hook(lambda _, inputs, __: forwards.append(len(inputs[0])))
    backwards: list[Any] = []
    model.model.vision_tower.register_full_backward_hook(lambda *grads: backwards.append(grads))
    lora = LoraConfig(r=4, target_modules=LANGUAGE)
    options: dict[str, Any] = {"gradient_checkpointing": True, "num_train_epochs": 1}
    extra = {"sharing": SharingConfig(self_check=False)}
    train(
        SharedPrefixDPOTrainer,
        lambda: model,
        processor,
        vision_pairs(4),
        lora,
        tmp_path,
        ours=extra,
        **options,
    )
    assert forwards == [2, 2]  # two steps of two pairs; the reference takes the policy's features
    assert not backwards


def test_an_image_token_in_a_completion_is_refused(checkpoint: Path, processor: Any, tmp_path: Path) -> None:
    rows: list[Any] = list(vision_pairs(2))
    rows[0]["chosen"][0]["content"] = f"a {processor.image_token} b"
    lora = LoraConfig(r=4, target_modules=LANGUAGE)
    with pytest.raises(AlignError, match="image token"):
        train(SharedPrefixDPOTrainer, lambda: llava(checkpoint), processor, as_pairs(rows), lora, tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attention": "eager"}, "shared rows need 'sdpa'"),
        ({"dropout": 0.1, "disable_dropout": False}, "dropout is on"),
        ({"collator": True}, "data collator is not TRL's own"),
    ],
)
def test_where_a_condition_fails_trl_trains_and_it_is_said(
    checkpoint: Path,
    processor: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
    words: str,
) -> None:
    def build() -> Any:
        model = llava(checkpoint)
        if "attention" in change:
            model.set_attn_implementation(change["attention"])
        return model

    options = {key: value for key, value in change.items() if key == "disable_dropout"}
    collator = DataCollatorForVisionPreference(processor) if "collator" in change else None
    trainer = SharedPrefixDPOTrainer(
        model=build(),
        args=DPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none", **options),
        data_collator=type("Own", (), {"__call__": lambda self, rows: collator(rows)})()
        if collator
        else None,
        train_dataset=vision_pairs(2),
        processing_class=processor,
        peft_config=LoraConfig(r=4, target_modules=LANGUAGE, lora_dropout=change.get("dropout", 0.0)),
    )
    assert not trainer.shares
    assert words in capsys.readouterr().out
    collate: Any = trainer.data_collator
    assert "shared_row" not in collate(list(vision_pairs(2)))
