"""The last layer's spared tokens: which they are, and that nothing else is spared.

That losses and gradients stay TRL's is tested wherever shared rows are compared with TRL.
"""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig

from align.trainers.attention import Method, use_shared_rows
from align.trainers.last_layer import trim_last_layer
from align.trainers.self_check import compared_layers
from align.trainers.shared_row import Branch, Group, SharedRow, pack
from tests.twins import Twins

ROW = [Group(range(5, 12), [Branch(range(3)), Branch(range(5))]), Group([], [Branch([4, 5])])]
TAIL = [6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]


def test_tail_by_hand() -> None:
    assert pack(ROW).tail().tolist() == TAIL


def run(model: Any, row: SharedRow) -> torch.Tensor:
    mask = row.input_ids.new_ones(1, 1, 1, 1)
    inputs = {"input_ids": row.input_ids, "position_ids": row.index, "attention_mask": mask}
    return model.model(**inputs, use_cache=False, shared_row=row).last_hidden_state[0, row.tail()]


def gradients(model: Any, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(model.model.parameters())))


@pytest.fixture(scope="module")
def checkpoint(twins: Twins) -> Path:
    return twins("qwen2")


@pytest.mark.parametrize("method", ["dense", "split"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_what_is_read_and_its_gradients_stay(checkpoint: Path, method: Method, checkpointed: bool) -> None:
    whole = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).train()
    use_shared_rows(whole, method)
    trimmed = copy.deepcopy(whole)
    assert trim_last_layer(trimmed.get_decoder())
    trimmed = copy.deepcopy(trimmed)  # the copy's hooks are its own
    if checkpointed:
        trimmed.gradient_checkpointing_enable({"use_reentrant": False})
    seen: list[int] = []
    trimmed.model.layers[-1].mlp.gate_proj.register_forward_hook(
        lambda _, inputs, __: seen.append(inputs[0].shape[1])
    )
    weight = torch.randn(len(TAIL), whole.config.hidden_size, generator=torch.Generator().manual_seed(0))
    wanted, mine = (run(model, pack(ROW)) for model in (whole, trimmed))
    assert torch.allclose(mine, wanted, atol=1e-5)
    # another row before the backward pass: what is recomputed is the row it belongs to
    run(trimmed, pack([Group([1], [Branch([2])])]))
    grads = (gradients(whole, (wanted * weight).sum()), gradients(trimmed, (mine * weight).sum()))
    for theirs, ours in zip(*grads, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4, rtol=1e-4)
    assert seen == [len(TAIL), 2] + [len(TAIL)] * checkpointed


def test_without_a_row_every_token_is_computed(checkpoint: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    ids = torch.arange(4, 14)[None]
    before = model(input_ids=ids).logits
    assert trim_last_layer(model.get_decoder())
    assert torch.equal(model(input_ids=ids).logits, before)


def test_unknown_layers_and_experts_are_left_alone() -> None:
    layer = nn.Module()
    layer.self_attn, layer.mlp = nn.Module(), nn.Module()
    layer.self_attn.q_proj, layer.self_attn.o_proj = nn.Linear(2, 2), nn.Linear(2, 2)
    layer.mlp.experts = nn.ModuleList([nn.Linear(2, 2)])
    decoder = nn.Module()
    decoder.layers = nn.ModuleList([layer])
    assert not trim_last_layer(decoder) and not trim_last_layer(nn.Module())
    assert not layer.self_attn.q_proj._forward_hooks


@pytest.mark.parametrize(
    ("count", "layers"),
    [(1, [0]), (2, [0, 1]), (4, [0, 3]), (26, [0, 1, 2, 3, 4, 5, 25]), (48, [0, 1, 2, 3, 4, 47])],
)
def test_the_comparison_at_the_start_covers_each_kind_and_the_last(count: int, layers: list[int]) -> None:
    """Gemma 3 has five layers with a window, then one without; the short ones here are of one kind."""
    config: Any = Gemma3TextConfig(num_hidden_layers=count) if count > 4 else SimpleNamespace()
    assert compared_layers(SimpleNamespace(layers=[None] * count, config=config)) == layers
