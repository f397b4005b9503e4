"""Predicted peak memory against a real trainer's live tensors; optimizer and weights by hand; the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from align.cli import main
from align.models.live_memory import LiveMemory
from align.models.loading import ModelSection
from align.models.quantized_shapes import EightBitShape, FourBitShape
from align.models.weightless import meta_model
from align.planning.command import show
from align.planning.measured_memory import measure
from align.planning.memory_plan import Stage
from align.planning.optimizer_states import optimizer_bytes
from align.run.memory import Growth
from tests.align.planning.memory_runs import MemoryRun, Method
from tests.twins import Twins

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
FROZEN = {"leave_out": ["mlp.gate", *EXPERTS]}
ADAPTED = {"leave_out": ["mlp.gate"], "target_parameters": EXPERTS}
SMALL_IMAGE = ["--image", "96x64", "--prompt_tokens", "20", "--answer_tokens", "30"]


@pytest.mark.parametrize(
    ("family", "stage", "method", "settings"),
    [
        ("llava", "sft", "lora", {}),
        ("llava", "dpo", "full", {}),
        ("llava", "sft", "int8", {"bf16": True}),
        ("qwen2_vl", "dpo", "lora", {"gradient_checkpointing": True, "bf16": True}),
        ("qwen2_vl", "sft", "nf4", {"gradient_checkpointing": True, "bf16": True}),
        ("qwen2_vl", "sft", "full", {"gradient_accumulation_steps": 2}),
        ("llava", "dpo", "nf4", {"bf16": True, "shares": False}),
        ("qwen3_5", "dpo", "lora", {"gradient_checkpointing": True, "bf16": True}),
        ("qwen3_5", "sft", "lora", {"shares": False}),
        ("qwen3_vl_moe", "dpo", "lora", {"lora": FROZEN, "shares": False}),
        ("qwen3_vl_moe", "sft", "nf4", {"lora": FROZEN, "bf16": True}),
        ("qwen3_vl_moe", "sft", "lora", {"lora": ADAPTED}),
    ],
)
def test_within_15_percent_of_the_measured_peak(
    twins: Twins, tmp_path: Path, family: str, stage: Stage, method: Method, settings: dict[str, Any]
) -> None:
    run = MemoryRun(stage, twins(family), method, tmp_path, **settings)
    trainer = run.trainer()
    peak, parts = measure(trainer)
    plan = run.predicted(trainer)
    assert plan.shared == trainer.shares == settings.get("shares", True)
    assert plan.peak == pytest.approx(peak, rel=0.15), (plan.parts, parts)
    assert plan.parts["weights"] == pytest.approx(parts["weights"], rel=0.08)
    assert plan.parts["activations"] == pytest.approx(parts["activations"], rel=0.15)
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    assert plan.trainable == trained
    assert plan.adapter_bytes == sum(
        p.numel() * p.element_size() for p in trainer.model.parameters() if p.requires_grad
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "nf4", "full"])
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_within_15_percent_on_the_base(
    base_checkpoint: Path, tmp_path: Path, stage: Stage, method: Method
) -> None:
    run = MemoryRun(stage, base_checkpoint, method, tmp_path)
    trainer = run.trainer()
    peak, _ = measure(trainer)
    assert run.predicted(trainer).peak == pytest.approx(peak, rel=0.15)


def test_experts_stay_unrounded_and_are_said_to(
    twins: Twins, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three layers of four experts, [96, 64] and [64, 48] each, in bfloat16."""
    run = MemoryRun("sft", twins("qwen3_vl_moe"), "nf4", tmp_path, lora=FROZEN)
    plan = run.predicted(run.trainer())
    assert plan.experts == 3 * 4 * (96 * 64 + 64 * 48) * 2
    assert "experts held in one tensor are not rounded" in capsys.readouterr().out
    show(plan, "plan")
    assert "are experts, which bitsandbytes does not round" in capsys.readouterr().out
    plain = MemoryRun("sft", twins("qwen3_vl_moe"), "lora", tmp_path, lora=FROZEN)
    assert plain.predicted(plain.trainer()).experts == 0


def test_live_bytes_by_hand() -> None:
    """y = W x over 4 rows of 8 floats: W 256 bytes, x and y 128 each; the gradient of W is W's size."""
    layer = nn.Linear(8, 8, bias=False)
    memory = LiveMemory(layer)
    x = torch.ones(4, 8)
    memory.mark(x, "activations")
    assert memory.live == 256 + 128
    with memory:
        y = layer(x)
        assert memory.live == 256 + 128 + 128
        y[0].view(2, 4).add_(1)  # views and in-place work take nothing
        assert memory.live == 256 + 128 + 128
        loss = y.sum()
        loss.backward()
        assert layer.weight.grad is not None
        assert memory.parts_at_peak["weights"] == 256
        del y, loss
        assert memory.live == 256 + 128 + 256
        layer.weight.grad = None
        assert memory.live == 256 + 128
    memory.close()


def test_optimizer_states_by_hand() -> None:
    big, small = torch.empty(1000, 1000), torch.empty(10, 10, dtype=torch.bfloat16)
    assert optimizer_bytes([big, small], "adamw_torch_fused") == (2 * 4 * 10**6 + 2 * 2 * 100, 0)
    eight = 2 * (10**6 + 4 * 3907)  # 1,000,000 / 256 is 3906.25 blocks
    assert optimizer_bytes([big, small], "adamw_8bit") == (eight + 2 * 4 * 100, 0)
    assert optimizer_bytes([big, small], "paged_adamw_8bit") == (eight + 2 * 4 * 100, eight)
    assert optimizer_bytes([big, small], "paged_adamw_32bit") == (8 * 10**6 + 800, 8 * 10**6)
    assert optimizer_bytes([big], "sgd") == (0, 0)


def test_quantized_weights_by_hand(twins: Twins) -> None:
    """64 x 96: 3,072 bytes of 4-bit pairs, 96 block scales, one nested; or 6,144 bytes and 64 floats."""
    layer = nn.Linear(96, 64, bias=False, device="meta")
    four = FourBitShape(layer)
    assert four.weight.shape == (3072, 1) and four.weight.dtype == torch.uint8
    assert four.get_buffer("absmax").shape == (96,) and four.get_buffer("nested_absmax").shape == (1,)
    eight = EightBitShape(layer)
    assert eight.weight.nelement() == 6144 and eight.get_buffer("scales").shape == (64,)
    model = meta_model(ModelSection(path=str(twins("llava")), quantization="nf4"))
    kinds = {name for name, module in model.named_modules() if isinstance(module, FourBitShape)}
    assert len(kinds) == 2 * 7 and all(name.startswith("model.language_model.layers") for name in kinds)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_the_command_needs_a_config_and_no_weights(
    twins: Twins, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(twins("qwen2_vl") / "config.json", tmp_path)
    words = ["recipes/qwen3_vl_8b/dpo.yaml", "--config", str(tmp_path), *SMALL_IMAGE]
    assert main(["plan", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stage"] == "dpo" and found["image_tokens"] == 6 * 4 and found["row_from"] == "assumed"
    assert found["peak"] == sum(found["parts"].values())
    copy = (found["check"] - found["parts"]["weights"]) / 4  # two layers, so all of it is compared
    assert copy == found["total"] - found["trainable"]
    assert found["weights_by_dtype"]["bfloat16"] > 0 and found["fits_gib"]["16"] is True
    assert main(["plan", *words, "--full"]) == 0
    table = capsys.readouterr().out
    assert "(100.00%)" in table and "16 GB yes" in table


def test_rows_come_from_the_data_where_it_is(
    base_checkpoint: Path, tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.training_recipes import dpo_recipe, preference_rows

    rows = preference_rows(tiny_world)
    long = rows[3].chosen[0].model_copy(update={"content": "A cat sits on a mat. " * 12})
    rows[3] = rows[3].model_copy(update={"chosen": [long]})
    recipe = dpo_recipe(tmp_path, base_checkpoint, tiny_world, rows, trainer__per_device_train_batch_size=1)
    assert main(["plan", str(recipe), "--stage", "dpo", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["row_from"].startswith("the longest of") and found["image_tokens"] == 64
    assert found["row"]["answers"][0] > 12 * 6 > found["row"]["answers"][1]


def test_what_cannot_be_planned_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "recipes/qwen3_vl_8b/dpo.yaml"]) == 1
    assert "--config DIR" in capsys.readouterr().err
    assert main(["plan", "recipes/qwen2_5_vl_7b/eval.yaml"]) != 0
    assert "--stage sft or dpo" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_recipe_says_its_stage_or_is_asked_for_it(
    stage: str, twins: Twins, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the file's name nor the keys that it happens to have decide."""
    recipe = tmp_path / "round2.yaml"
    lines = [
        "name: round2",
        f"run_dir: {tmp_path}",
        f"model: {{path: {twins('llava')}}}",
        "data: {path: rows.jsonl, image_root: images}",
        "trainer: {learning_rate: 5e-6}",
        "lora: {r: 4}",
    ]
    recipe.write_text("\n".join(lines))
    assert main(["plan", str(recipe)]) == 2
    error = capsys.readouterr().err
    assert "a recipe of SFT as well as of DPO" in error and "`stage: sft` or `stage: dpo`" in error
    assert main(["plan", str(recipe), f"stage={stage}", "--json", *SMALL_IMAGE]) == 0
    assert json.loads(capsys.readouterr().out)["stage"] == stage
    other = {"sft": "dpo", "dpo": "sft"}[stage]
    assert main([other, str(recipe), f"stage={stage}"]) == 2
    assert f"stage = '{stage}': `align {other}` reads it: run `align {stage}`" in capsys.readouterr().err


def test_a_key_that_one_stage_alone_has_decides(
    twins: Twins, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "sft.yaml"
    recipe.write_text(
        f"run_dir: {tmp_path}\nmodel: {{path: {twins('llava')}}}\ntrainer: {{beta: 0.1}}\n"
        "data: {path: rows.jsonl, image_root: images}\n"
    )
    assert main(["plan", str(recipe), "--json", *SMALL_IMAGE]) == 0
    assert json.loads(capsys.readouterr().out)["stage"] == "dpo"
    assert main(["plan", str(recipe), "trainer.bta=1"]) == 2
    error = capsys.readouterr().err
    assert "sft: unknown key 'trainer.beta'" in error and "dpo: unknown key 'trainer.bta'" in error


def test_a_run_records_what_it_took_and_plan_sets_its_prediction_beside(
    sft_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from align.run.memory import read_efficiency

    found = read_efficiency(sft_run)
    assert found is not None
    adapter = sft_run / "adapter"
    assert found["adapter_bytes"] == sum(file.stat().st_size for file in adapter.iterdir())
    assert found["checkpoint_bytes"] is None or found["checkpoint_bytes"] > found["adapter_bytes"]
    assert found["parts"]["gradients"] == 4 * found["trainable"]
    assert found["parts"]["optimizer"] == pytest.approx(8 * found["trainable"], rel=0.01)
    assert found["peak"] == sum(found["parts"].values())
    assert 0 < found["step_seconds"]["median"] <= found["step_seconds"]["p90"]
    assert main(["plan", str(sft_run), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["measured"] == found and plan["trainable"] == found["trainable"]
    assert plan["parts"]["weights"] == pytest.approx(found["parts"]["weights"], rel=0.001)
    assert main(["plan", str(sft_run)]) == 0
    assert "predicted    measured" in capsys.readouterr().out


def test_growth_is_what_was_allocated() -> None:
    growth = Growth()
    growth.start()
    block = b"x" * (64 << 20)
    del block
    assert 60 << 20 < growth.bytes() < 90 << 20
