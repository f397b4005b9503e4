"""Loading, quantising and placing LoRA: what is hit is checked on the model, never assumed."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from align.errors import AlignError
from align.models import families
from align.models.families import FAMILIES, modules_of
from align.models.family import Component
from align.models.loading import ModelSection, load_model, load_processor
from align.models.lora_places import as_pattern, matching, places
from align.models.proposal import checked_modules, inspect
from align.tuning.lora import LoraSection, lora_config
from tests.align.adapter_folders import lora_targets
from tests.twins import LEAVE_OUT, Twins


def _copy(base: Path, to: Path, without: str) -> ModelSection:
    shutil.copytree(base, to, ignore=shutil.ignore_patterns(without))
    return ModelSection(path=str(to))


def test_family_prefixes_are_the_installed_module_names() -> None:
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.pytorch_utils import Conv1D

    assert len(FAMILIES) >= 19
    for model_type, family in FAMILIES.items():
        modules = family.modules
        auto = AutoModelForImageTextToText if modules.vision else AutoModelForCausalLM
        components: list[Component] = ["vision", "connector", "language"] if modules.vision else ["language"]
        if modules.cross_attention:
            components.append("cross_attention")
        parts: dict[str, Any] = {}
        if model_type.startswith("gemma4"):  # without them it reads text only
            parts = {"vision_config": {}, "audio_config": {}}
        config = CONFIG_MAPPING[model_type](**parts)
        config.get_text_config().pad_token_id = 0  # Idefics3's default lies outside its default vocabulary
        with torch.device("meta"):
            model = auto.from_config(config)
        if model_type == "gemma4_unified":
            with pytest.raises(AlignError, match="calls no part of it its image encoder"):
                inspect(model)
        else:
            # MiniCPM-V's tower has a merger between its layers, which a proposal takes for no layer
            between = {"vision": f"{modules.tower}.encoder"} if model_type.startswith("minicpm") else {}
            assert inspect(model) == replace(modules, **between), f"{model_type} would be proposed otherwise"
        kinds = (torch.nn.Linear, Conv1D)
        linear = [name for name, module in model.named_modules() if isinstance(module, kinds)]
        names, everything = [name for name, _ in model.named_modules()], []
        for component in components:
            found = places(model, modules, component, "attention+mlp", LEAVE_OUT.get(model_type, ()))
            hits = found.chosen
            bare = (model_type, component) == ("gemma3", "connector")  # a matrix, no layer
            assert hits or bare, f"{model_type}: nothing in {component}"
            assert {modules.component_of(name) for name in hits} <= {component}, model_type
            assert matching(as_pattern(hits, names), names) == sorted(hits, key=names.index)
            assert not found.unmatched or bare
            everything += [*hits, *found.unread, *found.left_out, *found.outside]
        missed = {re.sub(r"\d+", "N", name) for name in set(linear) - set(everything)}
        kept = ("lm_head", ".head.", "audio")
        assert all(any(part in name for part in kept) for name in missed), f"{model_type}: {missed}"


def test_an_unknown_family_says_which_key_to_set() -> None:
    with pytest.raises(AlignError, match=r"'florence9' is not one of(.|\n)*`family`"):
        modules_of("florence9")


@pytest.mark.parametrize("model_type", ["qwen2_vl", "blip-2"])
def test_a_proposal_is_shown_and_counts_once_it_stands_in_the_recipe(
    model_type: str, twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its entry removed; the lines of the error are the section that puts it back."""
    import yaml

    entry = FAMILIES[model_type].modules
    monkeypatch.delitem(FAMILIES, model_type)
    monkeypatch.setattr(families, "_CONFIRMED", {})
    section = ModelSection(path=str(twins(model_type)))
    model = load_model(section)
    with pytest.raises(AlignError, match="by its structure it would be") as caught:
        lora_config(LoraSection(), model)
    proposed = yaml.safe_load(caught.value.what.split("\n", 1)[1])
    assert families.known_modules(model_type) is None  # shown, not used
    load_processor(section.model_validate({"path": section.path, **proposed["model"]}))
    assert modules_of(model_type) == entry
    assert lora_config(LoraSection(), model).target_modules == lora_targets(model, ["language"])


def test_a_known_family_is_not_redefined(twins: Twins) -> None:
    section = ModelSection.model_validate({"path": str(twins("llama")), "family": {"language": "decoder"}})
    with pytest.raises(AlignError, match="'llama' is a known family"):
        load_processor(section)


def test_cross_attention_is_a_component_of_its_own(twins: Twins) -> None:
    modules = FAMILIES["blip-2"].modules
    query = "qformer.encoder.layer.0.crossattention.attention.query"
    own = "qformer.encoder.layer.0.attention.attention.query"
    model = load_model(ModelSection(path=str(twins("blip-2"))))
    assert matching(lora_targets(model, ["cross_attention"], "attention"), [query, own]) == [query]
    assert matching(lora_targets(model, ["connector"], "attention"), [query, own]) == [own]
    assert (modules.component_of(query), modules.component_of(own)) == ("cross_attention", "connector")
    with pytest.raises(AlignError, match=r"no cross-attention(.|\n)*families with cross-attention: blip-2$"):
        places(model, modules_of("llava"), "cross_attention", "attention")
    with pytest.raises(AlignError, match="cross-attention has no mlp"):
        places(model, modules, "cross_attention", "mlp")


def test_a_family_without_a_file_is_proposed_with_its_cross_attention() -> None:
    """Mllama, which vLLM no longer serves."""
    from transformers import CONFIG_MAPPING

    with pytest.raises(AlignError, match="'mllama' is not a known family") as caught:
        checked_modules(CONFIG_MAPPING["mllama"]())
    assert r'cross_attention: "model\\.language_model\\.layers\\.\\d+\\.cross_attn"' in caught.value.what


def test_a_text_only_family_has_no_vision_to_adapt() -> None:
    with pytest.raises(AlignError, match=r"text-only model has no vision"):
        places(None, modules_of("gpt2"), "vision", "attention")


@pytest.mark.parametrize("target", ["q_proj", "all-linear", ["q_proj", "v_proj"]])
def test_bare_names_are_refused(base_checkpoint: Path, target: str | list[str]) -> None:
    model = load_model(ModelSection(path=str(base_checkpoint)))
    with pytest.raises(AlignError, match="reach into the vision tower"):
        lora_config(LoraSection.model_validate({"target_modules": target}), model)


def test_a_pattern_that_hits_nothing_is_refused(base_checkpoint: Path) -> None:
    model = load_model(ModelSection(path=str(base_checkpoint)))
    with pytest.raises(AlignError, match="LoRA hits no module"):
        lora_config(LoraSection.model_validate({"target_modules": r"model\.text\..*"}), model)


def test_checkpoint_without_processor(base_checkpoint: Path, tmp_path: Path) -> None:
    section = _copy(base_checkpoint, tmp_path / "base", without="*processor_config.json")
    with pytest.raises(AlignError, match=r"processor(.|\n)*copy processor_config\.json"):
        load_processor(section)


def test_checkpoint_without_weights(base_checkpoint: Path, tmp_path: Path) -> None:
    section = _copy(base_checkpoint, tmp_path / "base", without="*.safetensors")
    with pytest.raises(AlignError, match="cannot load the model"):
        load_model(section)


def test_missing_weights_are_not_made_up(base_checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    section = _copy(base_checkpoint, tmp_path / "base", without="nothing")
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    lost = next(name for name in tensors if "q_proj" in name)
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, file, {"format": "pt"})
    with pytest.raises(AlignError, match=r"1 weights are missing.*q_proj"):
        load_model(section)


def test_pickled_weights_are_not_read(base_checkpoint: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    section = _copy(base_checkpoint, tmp_path / "base", without="*.safetensors")
    torch.save(load_file(base_checkpoint / "model.safetensors"), tmp_path / "base" / "pytorch_model.bin")
    with pytest.raises(AlignError, match="cannot load the model"):
        load_model(section)


def test_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(AlignError, match="no such checkpoint"):
        load_model(ModelSection(path=str(tmp_path / "gone")))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(AlignError, match=r"has no config\.json(.|\n)*notes\.txt"):
        load_model(ModelSection(path=str(tmp_path)))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"})[:-3])
    with pytest.raises(AlignError, match="not JSON"):
        load_model(ModelSection(path=str(tmp_path)))


def test_nf4_keeps_tower_and_connector_out(base_checkpoint: Path) -> None:
    import torch
    from bitsandbytes.nn.modules import Linear4bit

    model = load_model(ModelSection(path=str(base_checkpoint), quantization="nf4"))
    kinds = {
        name: type(module) for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)
    }
    four_bit = {name for name, kind in kinds.items() if kind is Linear4bit}
    assert four_bit == {name for name in kinds if name.startswith("model.language_model.")}


@pytest.mark.parametrize("has_bf16", [True, False])
def test_nf4_evaluates_with_the_weights_as_quantised_on_any_processor(
    twins: Twins, monkeypatch: pytest.MonkeyPatch, has_bf16: bool
) -> None:
    """bitsandbytes repacks 4-bit weights where the CPU has AVX-512 BF16, with rounded scales; every machine
    is told here that it has, and that it has not."""
    import torch
    from bitsandbytes.nn import modules
    from peft.utils.integrations import dequantize_module_weight

    monkeypatch.setattr(modules, "has_avx512bf16", lambda: has_bf16)
    model: Any = load_model(ModelSection(path=str(twins("llava")), dtype="float32", quantization="nf4"))
    layer = model.get_submodule("model.language_model.layers.1.mlp.down_proj")
    assert isinstance(layer, modules.Linear4bit) and not layer.training
    packed, rows = layer.weight.data.clone(), torch.randn(3, layer.in_features)
    with torch.no_grad():
        product = layer(rows)
    assert torch.equal(layer.weight.data, packed)
    weights: Any = layer.weight
    assert weights.quant_state.nested and weights.quant_state.absmax.dtype == torch.uint8
    weight = dequantize_module_weight(layer)
    wanted = rows.bfloat16() @ weight.bfloat16().T
    assert torch.allclose(product, wanted.float(), rtol=2**-7, atol=2**-7)
