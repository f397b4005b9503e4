"""Linear attention: a state read once and begun from by each branch; no row that reads its neighbour."""

from __future__ import annotations

import copy
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    Lfm2Config,
    Lfm2ForCausalLM,
)
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig

from align.errors import AlignError
from align.trainers import SharedImageSFTTrainer, SharedPrefixDPOTrainer
from align.trainers.linear_attention import (
    SharedState,
    keeps_a_state,
    linear_layers,
    share_states,
    takes_states,
)
from align.trainers.shared_row import Branch, Group, SharedRow, pack
from tests.align.adapter_folders import lora_targets
from tests.align.trainers.trl_comparison import assert_equal, train, vision_pairs
from tests.twins import Twins

GROUPS = {
    "ragged": [Group(range(40), [Branch(range(9)), Branch(range(30))]), Group(range(7), [Branch([1])] * 2)],
    "more than a chunk of 64": [Group(range(150), [Branch(range(70)), Branch(range(3))])],
    "prefix shorter than the convolution": [Group([1, 2], [Branch(range(5))] * 3)],
    "no prefix, empty branch": [Group([], [Branch(range(6)), Branch(range(3))]), Group([1, 2], [Branch([])])],
}
QUESTIONS = ("What is this?", "Is there a cat in the picture? Look closely.", "And how many dogs do you see?")


def load(folder: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").requires_grad_(False).eval()


@pytest.fixture(scope="module")
def layer(twins: Twins) -> Any:
    model = load(twins("qwen3_5"))
    decoder = model.get_decoder()
    assert takes_states(decoder) and len(linear_layers(decoder)) == 3
    share_states(decoder)
    return linear_layers(decoder)[0].requires_grad_(True)


@pytest.mark.parametrize("name", GROUPS)
def test_a_layer_over_a_shared_row_equals_separate_sequences(name: str, layer: Any) -> None:
    row = pack(GROUPS[name])
    torch.manual_seed(0)
    hidden = torch.randn(1, len(row), 64, requires_grad=True)
    weight = torch.randn(1, len(row), 64)
    ours, theirs = layer(hidden, shared_row=row), separately(layer, hidden, row)
    assert torch.allclose(ours, theirs, atol=1e-5)
    wanted = [hidden, *layer.parameters()]
    ours, theirs = (torch.autograd.grad((out * weight).sum(), wanted) for out in (ours, theirs))
    for mine, other in zip(ours, theirs, strict=True):
        assert float((mine - other).norm()) <= 1e-5 * float(other.norm())


def separately(layer: Any, hidden: Tensor, row: SharedRow) -> Tensor:
    """Each sequence by itself, through transformers' own forward; a prefix from its first branch."""
    pieces = []
    for span in row.spans:
        prefix, *branches = hidden[:, span.start : span.stop].split([span.prefix, *span.branches], 1)
        whole = [type(layer).forward(layer, torch.cat([prefix, own], 1)) for own in branches]
        pieces += [whole[0][:, : span.prefix], *(out[:, span.prefix :] for out in whole)]
    return torch.cat(pieces, 1)


def test_a_branch_reads_its_prefix_and_not_the_other_branch(layer: Any) -> None:
    row = pack([Group(range(20), [Branch(range(6)), Branch(range(6))])])
    hidden = torch.randn(1, 32, 64, requires_grad=True)
    (read,) = torch.autograd.grad(layer(hidden, shared_row=row)[:, 26:].sum(), hidden)
    assert read[0, :20].abs().sum(1).min() > 0 and read[0, 26:].abs().sum(1).min() > 0
    assert not read[0, 20:26].any()


def test_nothing_of_a_pass_waits_for_the_garbage_collector(layer: Any) -> None:
    row = pack(GROUPS["ragged"])
    hidden = torch.randn(1, len(row), 64, requires_grad=True)
    gc.collect()
    gc.disable()
    try:
        output = layer(hidden, shared_row=row)
        assert output.requires_grad
        assert not [one for one in gc.get_objects() if type(one) is SharedState]
    finally:
        gc.enable()


def test_a_copy_of_the_model_calls_itself(layer: Any) -> None:
    row = pack(GROUPS["ragged"])
    hidden = torch.randn(1, len(row), 64)
    before = layer(hidden, shared_row=row)
    other = copy.deepcopy(layer)
    nn.init.zeros_(other.out_proj.weight)
    assert not other(hidden, shared_row=row).any()
    assert layer(hidden, shared_row=row).equal(before)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_row_alone_equals_the_row_in_a_padded_batch(twins: Twins, side: str) -> None:
    """Losses within 1e-5, gradients within 1e-4: padding leaves neither state nor columns."""
    processor: Any = AutoProcessor.from_pretrained(twins("qwen3_5"))
    processor.tokenizer.padding_side = side
    model = load(twins("qwen3_5")).requires_grad_(True)
    texts, pictures = [], []
    for number, question in enumerate(QUESTIONS):
        pixels = np.random.default_rng(number).integers(0, 255, (48 + 8 * number, 70, 3), dtype=np.uint8)
        shown = [Image.fromarray(pixels)] if number else []
        parts = [*({"type": "image"} for _ in shown), {"type": "text", "text": question}]
        answer = {"role": "assistant", "content": question[::-1] * (1 + number)}
        texts.append(processor.apply_chat_template([{"role": "user", "content": parts}, answer]))
        pictures.append(shown)
    together = losses(model, processor(text=texts, images=pictures[1:], padding=True, return_tensors="pt"))
    apart = [
        losses(model, processor(text=[text], images=[shown] if shown else None, return_tensors="pt"))
        for text, shown in zip(texts, pictures, strict=True)
    ]
    alone = torch.cat(apart)
    assert torch.allclose(together, alone, atol=1e-5, rtol=0)
    trained = [weight for weight in model.parameters() if weight.dim() > 1]
    ours, theirs = (
        torch.autograd.grad(total, trained, allow_unused=True) for total in (together.sum(), alone.sum())
    )
    for mine, wanted in zip(ours, theirs, strict=True):
        if wanted is not None and mine is not None:
            assert float((mine - wanted).norm()) <= 1e-4 * float(wanted.norm())


def losses(model: Any, batch: Any) -> Tensor:
    """Each row's mean over its tokens but the first."""
    ids, real = batch["input_ids"][:, 1:], batch["attention_mask"]
    scored = (real[:, 1:] * real[:, :-1]).bool()
    found = model(**batch, use_cache=False).logits[:, :-1].log_softmax(-1).gather(2, ids[..., None])[..., 0]
    return -(found * scored).sum(1) / scored.sum(1)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_every_projection_is_trained_as_in_separate_rows(
    twins: Twins, tmp_path: Path, checkpointed: bool
) -> None:
    """DPO with LoRA everywhere, tower too, against TRL; after two steps each `lora_B` has moved."""
    folder = twins("qwen3_5")
    processor = AutoProcessor.from_pretrained(folder)
    target = lora_targets(load(folder), ("vision", "connector", "language"))
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=target)
    arguments = (lambda: load(folder), processor, vision_pairs(4), lora)
    once: dict[str, Any] = {"num_train_epochs": 1}
    theirs, _ = train(DPOTrainer, *arguments, tmp_path / "trl", **once)
    ours, trainer = train(
        SharedPrefixDPOTrainer, *arguments, tmp_path / "ours", gradient_checkpointing=checkpointed, **once
    )
    assert trainer.shares, trainer.obstacles
    assert_equal(ours, theirs)
    adapters = {name: weight for name, weight in trainer.model.named_parameters() if "lora_B" in name}
    kinds = (
        "visual.blocks",
        "visual.merger",
        "linear_attn.in_proj_a",
        "linear_attn.out_proj",
        "self_attn.q_proj",
    )
    assert all(any(kind in name for name in adapters) for kind in kinds)
    assert [name for name, weight in adapters.items() if not weight.any()] == []


def test_a_16_bit_model_is_compared_in_a_copy(twins: Twins, tmp_path: Path) -> None:
    folder = twins("qwen3_5")
    build = lambda: load(folder).bfloat16()  # noqa: E731
    lora = LoraConfig(r=4, target_modules=lora_targets(load(folder), ("language",)))
    processor = AutoProcessor.from_pretrained(folder)
    _, trainer = train(
        SharedPrefixDPOTrainer, build, processor, vision_pairs(2), lora, tmp_path, num_train_epochs=1
    )
    assert trainer.shares, trainer.obstacles


def test_what_keeps_a_state(twins: Twins) -> None:
    """LFM2's convolutions too, which transformers does not call a state."""
    small: dict[str, Any] = {
        "vocab_size": 32,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
    }
    conv = Lfm2Config(
        **small, num_key_value_heads=1, num_hidden_layers=2, layer_types=["conv", "full_attention"]
    )
    assert keeps_a_state(Lfm2ForCausalLM(conv))
    assert keeps_a_state(load(twins("qwen3_5")))
    assert not keeps_a_state(load(twins("gemma3")))


@pytest.mark.parametrize(
    "setting",
    [{"packing": True, "max_length": 64}, {"padding_free": True, "max_length": None}],
    ids=["packed", "padding-free"],
)
def test_rows_in_one_sequence_are_refused(twins: Twins, tmp_path: Path, setting: dict[str, Any]) -> None:
    """Nothing tells the layers where a row ends: the state of one would run into the next."""
    tokenizer = AutoTokenizer.from_pretrained(twins("qwen3_5"))
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": q}]} for q in QUESTIONS
    ]
    options: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": "none", **setting}
    with pytest.raises(AlignError, match="into the next"):
        SharedImageSFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(twins("qwen3_5"), dtype="float32"),
            args=SFTConfig(str(tmp_path), **options),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
