"""Experts adapted by `lora.target_parameters`: the update is B A of each expert, and all of it is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from align.errors import AlignError
from align.models.loading import ModelSection, load_model
from align.tuning.lora import LoraSection, lora_plan
from align.tuning.placement import placement
from tests.twins import Twins

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
IDS = torch.arange(24).reshape(2, 12) * 7 % 90 + 20


def _wrapped(folder: Path, **lora: Any) -> tuple[Any, Any]:
    from peft import get_peft_model

    model = load_model(ModelSection(path=str(folder), dtype="float32"))
    plan = lora_plan(LoraSection.model_validate({"r": 4, "lora_alpha": 8, **lora}), model)
    return get_peft_model(model, plan.config), plan


def test_every_expert_tensor_is_planned_hit_and_counted(twins: Twins) -> None:
    """Three layers, two tensors each: A [4 experts x r, in] and B [out, 4 x r]."""
    model, plan = _wrapped(twins("qwen3_vl_moe"), target_parameters=EXPERTS, leave_out=["mlp.gate"])
    (part,) = plan.parts
    assert len(part.modules) == 12 and len(part.parameters) == 6
    where = placement(model, plan.parts)
    (row,) = where.components
    attention = 4 * ((64 + 64) + (64 + 32) + (64 + 32) + (64 + 64))
    experts = 4 * 4 * ((64 + 96) + (48 + 64))
    assert row.num_modules == 18 and row.trainable == 3 * (attention + experts)
    assert row.ranks == (4,)
    assert where.by_kind["language: gate_up_proj"] == where.by_kind["language: down_proj"] == 3
    assert "model.language_model.layers.1.mlp.experts.down_proj" in where.modules
    assert "  left out: mlp.gate 3" in where.matrices


def test_sections_and_patterns_reach_experts_too(twins: Twins) -> None:
    sections = {"vision": {"r": 2, "lora_alpha": 2}, "language": {"r": 6, "lora_alpha": 12}}
    more = {"target_parameters": EXPERTS, "leave_out": ["mlp.gate"]}
    model, plan = _wrapped(twins("qwen3_vl_moe"), r=None, lora_alpha=None, components=sections, **more)
    rows = {row.component: row for row in placement(model, plan.parts).components}
    assert rows["language"].ranks == (6,) and rows["vision"].ranks == (2,)
    pattern = r"model\.language_model\..*\.q_proj"
    model, plan = _wrapped(twins("qwen3_vl_moe"), target_modules=pattern, target_parameters=EXPERTS[1:])
    (row,) = placement(model, plan.parts).components
    assert row.num_modules == 6


@pytest.mark.parametrize("name", ["qwen3_vl_moe", "qwen3_5_moe"])
def test_training_is_plain_autograd_on_factors_of_each_expert(twins: Twins, name: str) -> None:
    """Three steps of SGD: losses and factors as with W + 2 B A written out by hand."""
    pattern = r"model\.language_model\.layers\.0\..*(?:q_proj|out_proj)"
    more: dict[str, Any] = {"target_parameters": EXPERTS[:1], "target_modules": pattern}
    model, _ = _wrapped(twins(name), **more)
    layer = "model.language_model.layers.0.mlp.experts"
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(f"{layer}." in key and "lora_" in key)
    torch.manual_seed(0)
    found = model.get_base_model().get_submodule(layer)
    with torch.no_grad():
        found.lora_B["default"].weight.normal_(std=0.05)
    a = found.lora_A["default"].weight.detach().reshape(4, 4, 64).clone().requires_grad_()
    b = found.lora_B["default"].weight.detach().reshape(96, 4, 4).permute(2, 0, 1).clone().requires_grad_()
    base = load_model(ModelSection(path=str(twins(name)), dtype="float32"))
    weight = base.get_parameter(f"{layer}.gate_up_proj").detach()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        values = {f"{layer}.gate_up_proj": weight + 2 * torch.stack([b[e] @ a[e] for e in range(4)])}
        wanted = torch.func.functional_call(base, values, (), {"input_ids": IDS, "labels": IDS}).loss
        assert float((loss - wanted).detach().abs()) < 1e-5
        gradients = torch.autograd.grad(wanted, [a, b])
        assert all(float(gradient.abs().max()) > 1e-4 for gradient in gradients)
        with torch.no_grad():
            for factor, gradient in zip((a, b), gradients, strict=True):
                factor -= 0.5 * gradient
    assert torch.allclose(found.lora_A["default"].weight.reshape(4, 4, 64), a, rtol=0, atol=1e-5)
    assert torch.allclose(
        found.lora_B["default"].weight.reshape(96, 4, 4).permute(2, 0, 1), b, rtol=0, atol=1e-5
    )


def test_resumed_experts_train_on_as_if_never_stopped(twins: Twins, tmp_path: Path) -> None:
    whole = _trained(twins("qwen3_vl_moe"), tmp_path / "whole", 4)
    _trained(twins("qwen3_vl_moe"), tmp_path / "parts", 2)
    checkpoint = str(tmp_path / "parts" / "checkpoint-2")
    resumed = _trained(twins("qwen3_vl_moe"), tmp_path / "parts", 4, checkpoint)
    assert sum(".experts." in name for name in whole) == 12
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def _trained(folder: Path, out: Path, steps: int, resume: str | None = None) -> dict[str, torch.Tensor]:
    """The adapter after so many steps on three rows of words."""
    from datasets import Dataset
    from transformers import AutoProcessor
    from trl.trainer.sft_config import SFTConfig

    from align.trainers.sft_trainer import SharedImageSFTTrainer

    section = LoraSection.model_validate({"r": 2, "target_parameters": EXPERTS, "leave_out": ["mlp.gate"]})
    model = load_model(ModelSection(path=str(folder), dtype="float32"))
    turns = [("What is this?", "A ball."), ("Is it red?", "Yes, it is."), ("How many?", "Three.")]
    rows = [
        {
            "images": [],
            "messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}],
        }
        for ask, answer in turns
    ]
    torch.manual_seed(0)
    trainer = SharedImageSFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(out),
            per_device_train_batch_size=2,
            assistant_only_loss=True,
            bf16=False,
            use_cpu=True,
            learning_rate=1e-2,
            max_steps=steps,
            lr_scheduler_type="constant",
            save_steps=2,
            report_to="none",
            disable_tqdm=True,
            router_aux_loss_coef=0.0,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoProcessor.from_pretrained(folder),
        peft_config=lora_plan(section, model).config,
    )
    trainer.train(resume_from_checkpoint=resume)
    trained: Any = trainer.model
    return {name: p.detach() for name, p in trained.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({}, "9 weight matrices of language would stay untrained"),
        ({"target_parameters": ["experts.up_proj"]}, "names no parameter: 'experts.up_proj'"),
        ({"target_parameters": ["q_proj.weight"]}, "is the weight of a linear layer"),
        ({"target_parameters": EXPERTS, "leave_out": ["mlp.gate"], "lora_dropout": 0.1}, "no lora_dropout"),
        ({"target_parameters": EXPERTS, "leave_out": ["mlp.gate"], "use_dora": True}, "no use_dora"),
        ({"target_parameters": EXPERTS, "leave_out": ["mlp.gate"], "components": ["vision"]}, "outside the"),
    ],
)
def test_what_experts_do_not_take_is_said_before_training(
    twins: Twins, lora: dict[str, Any], said: str
) -> None:
    with pytest.raises(AlignError, match=said):
        _wrapped(twins("qwen3_vl_moe"), **lora)
