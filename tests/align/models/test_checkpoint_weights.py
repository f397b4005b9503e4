"""Parameters made of a checkpoint's files as transformers makes them, and files made of them again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from align.errors import AlignError
from align.merging.merge_checks import weight_shapes
from align.models.checkpoint_weights import check_convertible, copy_left_out, open_weights
from align.models.loading import ModelSection, load_model
from tests.twins import Twins

_TEXT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_DELTA = {"num_hidden_layers": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 2}
_ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
_ERNIE: dict[str, Any] = {
    "text_config": {
        **_TEXT,
        "moe_num_experts": 12,
        "moe_intermediate_size": [24, 12],
        "mlp_layer_types": ["dense", "sparse"],
        "rope_parameters": _ROPE,
    },
    "vision_config": {"depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2},
}
# Kinds of conversion: experts renamed and stacked, and beyond the tenth; one tensor cut into three; three put
# together; experts of two kinds taken from one list, and a transposed matrix.
KINDS = {
    "mixtral": {**_TEXT, "num_local_experts": 12},
    "hrm_text": _TEXT,
    "olmo_hybrid": {**_TEXT, **_DELTA, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
    "ernie4_5_vl_moe": _ERNIE,
}


def _saved(kind: str, folder: Path) -> Path:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText

    auto: Any = AutoModelForImageTextToText if "text_config" in KINDS[kind] else AutoModelForCausalLM
    model = auto.from_config(CONFIG_MAPPING[kind](**KINDS[kind]))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(folder)
    return folder


def _check(folder: Path) -> int:
    """Every parameter is what transformers loads, and goes back to the files' tensors bit for bit; returns
    how many of them are converted."""
    loaded, files = _loaded(folder), load_file(folder / "model.safetensors")
    with open_weights(folder) as weights:
        assert {name for name in loaded if name in weights.keys} == set(weights.keys)
        for name in weights.keys:
            assert torch.equal(weights.tensor(name), loaded[name]), name
            back = weights.in_files({one: weights.tensor(one) for one in weights.together(name)})
            assert back.keys() == set(weights.keys[name])
            assert all(torch.equal(tensor, files[key]) for key, tensor in back.items()), name
        return sum(weights.kind(name) != 0 for name in weights.keys)


def _loaded(folder: Path) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    sees = "vision_config" in json.loads((folder / "config.json").read_text())
    auto: Any = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    return auto.from_pretrained(folder, dtype="float32").state_dict()


@pytest.mark.parametrize(
    ("kind", "converted"), [("mixtral", 4), ("hrm_text", 24), ("olmo_hybrid", 3), ("ernie4_5_vl_moe", 8)]
)
def test_each_kind_of_conversion_is_done_and_undone(kind: str, converted: int, tmp_path: Path) -> None:
    assert _check(_saved(kind, tmp_path)) == converted
    check_convertible(tmp_path)


@pytest.mark.parametrize(("name", "converted"), [("qwen3_vl_moe", 6), ("qwen3_5_moe", 0)])
def test_experts_as_the_hub_has_them(twins: Twins, name: str, converted: int, tmp_path: Path) -> None:
    """And saved again by transformers they have the same names and shapes, transposed ones too."""
    assert _check(twins(name)) == converted
    load_model(ModelSection(path=str(twins(name)), dtype="float32")).save_pretrained(tmp_path)
    copy_left_out(twins(name), tmp_path)
    assert weight_shapes(tmp_path) == weight_shapes(twins(name))
    assert _check(tmp_path) == converted


def test_experts_apart_are_stacked_and_taken_apart_again(twins: Twins, tmp_path: Path) -> None:
    model: Any = load_model(ModelSection(path=str(twins("qwen3_5_moe")), dtype="float32"))
    fresh = type(model)(model.config)
    fresh.load_state_dict(model.state_dict())
    fresh.save_pretrained(tmp_path)
    assert _check(tmp_path) == 6
    name = "model.language_model.layers.0.mlp.experts.gate_up_proj"
    with open_weights(tmp_path) as weights:
        assert len(weights.keys[name]) == 8
        back = weights.in_files({name: torch.arange(4 * 96 * 64.0).reshape(4, 96, 64)})
    # row 48 of an expert is the first of its up_proj
    assert back[name.replace("gate_up_proj", "2.up_proj.weight")][0, 0] == (2 * 96 + 48) * 64


def test_layers_that_the_class_leaves_out_stay_beside_its_weights(twins: Twins, tmp_path: Path) -> None:
    base = twins("qwen3_5_moe")
    with open_weights(base) as weights:
        assert weights.left_out == ("mtp.fc.weight", "mtp.norm.weight")
    model = load_model(ModelSection(path=str(base), dtype="float32"))
    model.save_pretrained(tmp_path, max_shard_size="400KB")
    copy_left_out(base, tmp_path)
    copy_left_out(base, tmp_path)  # a second time changes nothing
    assert weight_shapes(tmp_path) == weight_shapes(base)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"]["mtp.fc.weight"] == "model-left-out.safetensors"
    load_model(ModelSection(path=str(tmp_path), dtype="float32"))


def test_a_tensor_that_nothing_is_made_of_is_named(twins: Twins, tmp_path: Path) -> None:
    load_model(ModelSection(path=str(twins("qwen3_vl_moe")), dtype="float32")).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, "model.more": torch.ones(2)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(AlignError, match=r"model\.more is no parameter of Qwen3VLMoe"):
        check_convertible(tmp_path)
    name = "model.language_model.layers.1.mlp.experts.down_proj"
    save_file({**tensors, name: torch.ones(4, 3, 64)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(AlignError, match=r"down_proj is no parameter.*\(4, 64, 3\)"):
        check_convertible(tmp_path)


def test_a_stage_says_so_before_it_loads_the_model(
    twins: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from align import sft
    from align.config.recipe import validate
    from tests.align.models.test_families_matrix import write

    base = tmp_path / "base"
    shutil.copytree(twins("qwen3_vl_moe"), base)
    tensors = load_file(base / "model.safetensors")
    save_file({**tensors, "model.more": torch.ones(2)}, base / "model.safetensors", {"format": "pt"})
    values = {"run_dir": tmp_path, "model": str(base), "data": {"path": write(tmp_path, None).sft}}
    monkeypatch.setattr(sft, "load_model", lambda _: pytest.fail("the model was loaded"))
    with pytest.raises(AlignError, match=r"model\.more is no parameter"):
        sft.run(validate(sft.Recipe, values, where="test"))
