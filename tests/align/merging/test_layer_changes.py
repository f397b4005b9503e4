"""Base + adapter against a merged checkpoint, tensor by tensor, read from files alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from align.errors import AlignError
from align.merging.layer_changes import LayerChanges, compare
from align.models.adapter_folder import read_adapter
from tests.align.adapter_folders import make_adapter, merge_by_peft
from tests.twins import Twins


def _changed(checkpoint: Path, to: Path, part: str, value: Any) -> Path:
    """A copy of the checkpoint in which `value(tensor)` replaces the first tensor named like `part`."""
    shutil.copytree(checkpoint, to)
    tensors = load_file(to / "model.safetensors")
    name = next(name for name in sorted(tensors) if part in name)
    tensors[name] = value(name, tensors[name])
    save_file(tensors, to / "model.safetensors", {"format": "pt"})
    return to


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "gpt2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_peft_merged_is_base_plus_adapter(twins: Twins, name: str, dtype: str, tmp_path: Path) -> None:
    base = twins(name)
    adapter = make_adapter(base, tmp_path / "adapter")
    merged = merge_by_peft(base, adapter, tmp_path / "merged", dtype)
    changes = compare(base, merged, read_adapter(adapter))
    assert not changes.faults()
    assert len(changes.layers) == len(read_adapter(adapter).shapes()) / 2
    assert {layer.component for layer in changes.layers} == {"language"}
    assert all(layer.applied == pytest.approx(1, abs=0.01) for layer in changes.layers)
    assert all(layer.relative_change > 0.01 for layer in changes.layers)
    everything = len(load_file(base / "model.safetensors"))
    assert changes.untouched == everything - len(changes.layers)
    worst = max(layer.rounding for layer in changes.layers)
    assert worst < 1e-5 if dtype == "float32" else 1e-4 < worst < 0.2


EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


@pytest.mark.parametrize("name", ["qwen3_vl_moe", "qwen3_5_moe"])
def test_experts_are_compared_parameter_by_parameter(twins: Twins, name: str, tmp_path: Path) -> None:
    """Adapted ones as adapted weights, those of a checkpoint with another's experts as stray ones."""
    base = twins(name)
    adapter = make_adapter(base, tmp_path / "adapter", target_parameters=EXPERTS)
    merged = merge_by_peft(base, adapter, tmp_path / "merged")
    changes = compare(base, merged, read_adapter(adapter))
    assert not changes.faults()
    experts = [layer for layer in changes.layers if ".experts." in layer.parameter]
    layers = {layer.parameter.partition(".mlp.")[0] for layer in experts}
    assert len(experts) == 2 * len(layers) == 6
    assert all(layer.status == "merged" and layer.component == "language" for layer in experts)
    assert all(layer.applied == pytest.approx(1, abs=0.01) for layer in experts)
    plain = make_adapter(base, tmp_path / "plain")
    faults = compare(base, merged, read_adapter(plain)).faults()
    assert any("without an adapter changed" in fault and ".experts." in fault for fault in faults)
    missing = compare(base, base, read_adapter(adapter)).faults()
    assert any("adapted weights are the base's" in fault for fault in missing)


@pytest.mark.parametrize("kind", ["dora", "rslora", "pissa", "modules_to_save"])
def test_other_kinds_merge_as_peft_merges_them(twins: Twins, kind: str, tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "dora": {"use_dora": True},
        "rslora": {"use_rslora": True},
        "pissa": {"init_lora_weights": "pissa"},
        "modules_to_save": {"modules_to_save": ["linear_1"]},
    }[kind]
    adapter = make_adapter(twins("llava"), tmp_path / "adapter", **more)
    merged = merge_by_peft(twins("llava"), adapter, tmp_path / "merged")
    changes = compare(twins("llava"), merged, read_adapter(adapter))
    assert not changes.faults()
    assert changes.replaced == (
        ["model.multi_modal_projector.linear_1.bias", "model.multi_modal_projector.linear_1.weight"]
        if kind == "modules_to_save"
        else []
    )


def test_every_wrong_merge_is_named(twins: Twins, tmp_path: Path) -> None:
    base = twins("llava")
    adapter = make_adapter(base, tmp_path / "adapter")
    merged = merge_by_peft(base, adapter, tmp_path / "merged")
    original = load_file(base / "model.safetensors")

    def faults(part: str, value: Any) -> list[str]:
        to = tmp_path / f"wrong{len(list(tmp_path.iterdir()))}"
        return compare(base, _changed(merged, to, part, value), read_adapter(adapter)).faults()

    q_proj = "language_model.model.layers.0.self_attn.q_proj"
    (found,) = faults(q_proj, lambda name, _: original[name])
    assert "1 of 14 adapted weights are the base's" in found and "layers.0.self_attn.q_proj" in found
    (found,) = faults(q_proj, lambda name, tensor: tensor * 2 - original[name])
    assert "applied 2.000 times" in found
    (found,) = faults("vision_tower", lambda _, tensor: tensor + 1e-3)
    assert "1 weights without an adapter changed" in found and "vision_tower" in found


def test_an_adapter_that_changes_nothing_and_one_that_16_bits_cannot_hold(
    twins: Twins, tmp_path: Path
) -> None:
    adapter = make_adapter(twins("llava"), tmp_path / "adapter")
    tensors = load_file(adapter / "adapter_model.safetensors")
    for name in tensors:
        if "layers.0.self_attn.q_proj.lora_B" in name:
            tensors[name] *= 0
        if "layers.0.self_attn.k_proj.lora_B" in name:
            tensors[name] *= 1e-6
    save_file(tensors, adapter / "adapter_model.safetensors", {"format": "pt"})
    base = _halved(twins("llava"), tmp_path / "base")
    merged = merge_by_peft(base, adapter, tmp_path / "merged", "bfloat16")
    changes: LayerChanges = compare(base, merged, read_adapter(adapter))
    assert not changes.faults()
    by_name = {layer.parameter: layer.status for layer in changes.layers}
    prefix = "model.language_model.layers.0.self_attn"
    assert by_name[f"{prefix}.q_proj.weight"] == "zero"
    assert by_name[f"{prefix}.k_proj.weight"] == "rounded away"
    assert by_name[f"{prefix}.v_proj.weight"] == "merged"


def _halved(checkpoint: Path, to: Path) -> Path:
    import torch

    shutil.copytree(checkpoint, to)
    tensors = load_file(to / "model.safetensors")
    halved = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
    save_file(halved, to / "model.safetensors", {"format": "pt"})
    return to


def test_what_does_not_fit_is_refused(twins: Twins, tmp_path: Path) -> None:
    adapter = make_adapter(twins("llava"), tmp_path / "adapter")
    with pytest.raises(AlignError, match="fit no module of the checkpoint"):
        compare(twins("qwen2"), twins("qwen2"), read_adapter(adapter))
    with pytest.raises(AlignError, match="in one of the checkpoints alone"):
        compare(twins("llava"), twins("llava_next"), read_adapter(adapter))
    (adapter / "adapter_config.json").write_text('{"peft_type": "PREFIX_TUNING"}')
    with pytest.raises(AlignError, match="prefix tuning cannot be merged"):
        compare(twins("llava"), twins("llava"), read_adapter(adapter))
