"""Adapters taken out of a merged checkpoint, and several adapters made one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from align import combine, unmerge
from align.config.recipe import validate
from align.errors import AlignError, RecipeError
from align.models.adapter_folder import read_adapter
from tests.align.adapter_folders import make_adapter, merge_by_peft
from tests.twins import Twins


def _unmerge(run_dir: Path, **values: Any) -> Any:
    return unmerge.run(validate(unmerge.Recipe, {"run_dir": run_dir, **values}, where="test"))


def _combine(run_dir: Path, model: Path, adapters: dict[str, tuple[Path, float]], **values: Any) -> Any:
    given = {name: {"path": path, "weight": weight} for name, (path, weight) in adapters.items()}
    recipe = {"run_dir": run_dir, "model": model, "adapters": given, **values}
    return combine.run(validate(combine.Recipe, recipe, where="test"))


@pytest.mark.parametrize("name", ["llava", "gpt2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_minus_adapter_is_the_base(twins: Twins, name: str, dtype: str, tmp_path: Path) -> None:
    adapter = make_adapter(twins(name), tmp_path / "adapter")
    base = merge_by_peft(twins(name), _zero(adapter, tmp_path / "zero"), tmp_path / "base", dtype)
    merged = merge_by_peft(base, adapter, tmp_path / "merged", dtype)
    folder = _unmerge(tmp_path, checkpoint=merged, adapter=adapter, base=base)
    metrics = folder.manifest()["metrics"]
    assert metrics["base_excess"] <= 1e-5 and metrics["remerged_excess"] <= 1e-5
    assert 0.5 < metrics["exact_share"] < 1
    found, wanted = (load_file(path / "model.safetensors") for path in (folder.final / "checkpoint", base))
    assert found.keys() == wanted.keys()
    apart = max(float((found[key].float() - wanted[key].float()).abs().max()) for key in found)
    assert apart < (1e-6 if dtype == "float32" else 1e-2)
    assert (folder.final / "checkpoint" / "config.json").is_file()


@pytest.mark.parametrize("name", ["qwen3_vl_moe", "qwen3_5_moe"])
def test_experts_come_out_again(twins: Twins, name: str, tmp_path: Path) -> None:
    """Transposed ones, and those that the base's files hold one by one."""
    base: Path = twins(name)
    if name == "qwen3_5_moe":
        base = _apart(base, tmp_path / "apart")
    experts = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    adapter = make_adapter(base, tmp_path / "adapter", target_parameters=experts)
    merged = merge_by_peft(base, adapter, tmp_path / "merged")
    folder = _unmerge(tmp_path, checkpoint=merged, adapter=adapter, base=base)
    found, wanted, changed = (
        load_file(path / "model.safetensors") for path in (folder.final / "checkpoint", base, merged)
    )
    assert {key: value.shape for key, value in found.items()} == {k: v.shape for k, v in wanted.items()}
    moved = [key for key in wanted if not torch.equal(changed[key], wanted[key])]
    assert sum(".mlp.experts." in key for key in moved) == {"qwen3_vl_moe": 6, "qwen3_5_moe": 36}[name]
    assert max(float((found[key] - wanted[key]).abs().max()) for key in found) < 1e-6


def _apart(base: Path, to: Path) -> Path:
    """The checkpoint with each expert's matrices in tensors of their own, as `save_pretrained` of a model
    made from a config writes them."""
    from align.models.loading import ModelSection, load_model

    model: Any = load_model(ModelSection(path=str(base), dtype="float32"))
    fresh = type(model)(model.config)
    fresh.load_state_dict(model.state_dict())
    fresh.save_pretrained(to)
    return to


def _zero(adapter: Path, to: Path) -> Path:
    import shutil

    from safetensors.torch import save_file

    shutil.copytree(adapter, to)
    tensors = load_file(to / "adapter_model.safetensors")
    save_file({name: tensor * 0 for name, tensor in tensors.items()}, to / "adapter_model.safetensors")
    return to


def test_what_is_not_in_the_checkpoint_does_not_come_out(twins: Twins, tmp_path: Path) -> None:
    base = twins("llava")
    adapter = make_adapter(base, tmp_path / "adapter")
    other = make_adapter(base, tmp_path / "other", seed=1)
    merged = merge_by_peft(base, adapter, tmp_path / "merged")
    with pytest.raises(AlignError, match="merged - adapter is not the base"):
        _unmerge(tmp_path, checkpoint=merged, adapter=other, base=base)
    settings: list[tuple[dict[str, Any], str]] = [
        ({"use_dora": True}, "DoRA rescales"),
        ({"init_lora_weights": "pissa"}, r"its initialisation \(pissa\) took a part"),
        ({"modules_to_save": ["linear_1"]}, "the originals are not in the merged"),
    ]
    for more, why in settings:
        refused = make_adapter(base, tmp_path / why[:5], **more)
        with pytest.raises(AlignError, match=why):
            _unmerge(tmp_path, checkpoint=merged, adapter=refused)


def _updates(adapter: Path) -> dict[str, Any]:
    """Module -> scaling * B A, by hand from the adapter's files."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    tensors = load_file(adapter / "adapter_model.safetensors")
    found = {}
    for name, a in tensors.items():
        if name.endswith("lora_A.weight"):
            b = tensors[name.replace("lora_A", "lora_B")]
            rank = a.shape[0]
            patterns = config["alpha_pattern"]
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            alpha = patterns.get(module.replace(".", r"\."), config["lora_alpha"])
            found[module] = b @ a * alpha / (rank**0.5 if config["use_rslora"] else rank)
    return found


def test_cat_is_the_weighted_sum_and_svd_the_nearest_to_it(twins: Twins, tmp_path: Path) -> None:
    import torch

    base = twins("llava")
    one = make_adapter(base, tmp_path / "one", r=4, use_rslora=True)
    two = make_adapter(base, tmp_path / "two", components=("language", "connector"), seed=1, r=8)
    given = {"one": (one, 0.7), "two": (two, -0.3)}
    first, second = _updates(one), _updates(two)
    wanted = {key: -0.3 * second[key] + (0.7 * first[key] if key in first else 0) for key in second}

    folder = _combine(tmp_path / "cat", base, given)
    assert folder.manifest()["metrics"]["distance_to_weighted_sum"] < 1e-6
    found = _updates(folder.final / "adapter")
    assert found.keys() == wanted.keys()
    for key, update in wanted.items():
        torch.testing.assert_close(found[key], update, atol=1e-6, rtol=1e-5)

    folder = _combine(tmp_path / "svd", base, given, combination_type="svd", svd_rank=4)
    key = "model.language_model.layers.0.self_attn.q_proj"
    u, s, v = torch.linalg.svd(wanted[key])
    best = u[:, :4] @ torch.diag(s[:4]) @ v[:4]
    torch.testing.assert_close(_updates(folder.final / "adapter")[key], best, atol=1e-5, rtol=1e-4)
    assert 0.01 < folder.manifest()["metrics"]["distance_to_weighted_sum"] < 1


def test_linear_combines_factors_as_peft_says(twins: Twins, tmp_path: Path) -> None:
    import torch

    base = twins("llava")
    one, two = make_adapter(base, tmp_path / "one"), make_adapter(base, tmp_path / "two", seed=1)
    weights = {"one": (one, 0.7), "two": (two, 0.3)}
    folder = _combine(tmp_path, base, weights, combination_type="linear")
    tensors = [load_file(path / "adapter_model.safetensors") for path in (one, two)]
    name = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_{}.weight"
    a, b = (
        (0.7 * 2) ** 0.5 * tensors[0][name.format(side)] + (0.3 * 2) ** 0.5 * tensors[1][name.format(side)]
        for side in "AB"
    )
    found = _updates(folder.final / "adapter")["model.language_model.layers.0.self_attn.q_proj"]
    torch.testing.assert_close(found, b @ a, atol=1e-6, rtol=1e-5)
    assert folder.manifest()["metrics"]["distance_to_weighted_sum"] > 0.1  # and it is not the sum of updates


@pytest.mark.parametrize("kind", ["ties", "dare_linear", "dare_ties_svd", "magnitude_prune"])
def test_the_other_kinds_make_an_adapter_that_merges(twins: Twins, kind: str, tmp_path: Path) -> None:
    from align.merging.layer_changes import compare

    base = twins("llava")
    one, two = make_adapter(base, tmp_path / "one"), make_adapter(base, tmp_path / "two", seed=1)
    weights = {"one": (one, 1.0), "two": (two, 1.0)}
    folders = [
        _combine(tmp_path / str(run), base, weights, combination_type=kind, density=0.5) for run in (1, 2)
    ]
    adapter = folders[0].final / "adapter"
    merged = merge_by_peft(base, adapter, tmp_path / "merged")
    changes = compare(base, merged, read_adapter(adapter))
    assert not changes.faults() and all(layer.status == "merged" for layer in changes.layers)
    files = [(folder.final / "adapter" / "adapter_model.safetensors").read_bytes() for folder in folders]
    assert files[0] == files[1]  # dare draws from the recipe's seed


def test_experts_are_not_combined(twins: Twins, tmp_path: Path) -> None:
    more: dict[str, Any] = {"target_parameters": ["mlp.experts.down_proj"]}
    one, other = (make_adapter(twins("qwen3_vl_moe"), tmp_path / name, **more) for name in "ab")
    with pytest.raises(AlignError, match=r"'a' adapts single parameters.*mlp.experts.down_proj"):
        _combine(tmp_path, twins("qwen3_vl_moe"), {"a": (one, 1.0), "b": (other, 1.0)})


def test_provenance_and_what_cannot_be_combined(twins: Twins, tmp_path: Path) -> None:
    base = twins("llava")
    one, two = make_adapter(base, tmp_path / "one"), make_adapter(base, tmp_path / "two", seed=1, r=8)
    given = {"one": (one, 0.5), "two": (two, 0.5)}
    folder = _combine(tmp_path, base, given)
    record = json.loads((folder.final / "adapter" / "combination.json").read_text())
    assert {name: item["weight"] for name, item in record["adapters"].items()} == {"one": 0.5, "two": 0.5}
    assert record["adapters"]["one"]["digest"] != record["adapters"]["two"]["digest"]
    with pytest.raises(AlignError, match=r"PEFT refuses to combine: All adapters must have the same r"):
        _combine(tmp_path / "linear", base, given, combination_type="linear")
    with pytest.raises(RecipeError, match="ties needs density"):
        _combine(tmp_path / "ties", base, given, combination_type="ties")
    (two / "base.json").write_text(json.dumps({"path": "elsewhere", "digest": "0" * 64}))
    with pytest.raises(AlignError, match="'two' was trained on another base"):
        _combine(tmp_path / "other", base, given)
