"""LoRA on 4-bit and 8-bit bases: trained, loaded, merged. And LoftQ, which starts with the rounding error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.integrations import dequantize_module_weight

from align import dpo, merge, sft
from align.config.recipe import load_recipe, validate
from align.errors import AlignError
from align.merging.merge_checks import largest_difference, logits, make_probes
from align.models.loading import ModelSection, load_model, load_processor
from align.tuning.loftq import start_from_rounding
from tests.training_recipes import dpo_recipe, sft_recipe, sft_rows
from tests.twins import Twins

LOFTQ = {"r": 8, "lora_alpha": 32, "lora_dropout": 0.0, "init_lora_weights": "loftq"}
NF4 = {"dtype": "float32", "quantization": "nf4"}
LAYER = "model.language_model.layers.1.mlp.up_proj"


def test_the_start_is_the_best_low_rank_part_of_the_rounding(twins: Twins) -> None:
    folder = twins("llava")
    original: Any = load_model(ModelSection(path=str(folder), dtype="float32"))
    rounded: Any = load_model(ModelSection.model_validate({"path": str(folder), **NF4}))
    model: Any = get_peft_model(
        rounded, LoraConfig(r=8, lora_alpha=32, target_modules=rf".*({LAYER}|1\.self_attn\.v_proj)")
    )
    share = start_from_rounding(model, folder)
    layer = model.get_base_model().get_submodule(LAYER)
    error = original.get_submodule(LAYER).weight - dequantize_module_weight(layer.get_base_layer()).float()
    singular = torch.linalg.svdvals(error)
    left = error - layer.get_delta_weight("default")
    assert torch.allclose(left.norm(), singular[8:].norm(), rtol=1e-4)
    assert 0 < share < 1


@pytest.mark.parametrize(
    ("quantization", "start", "optim"),
    [("nf4", True, "paged_adamw_8bit"), ("nf4", "loftq", "adamw_torch"), ("int8", True, "adamw_torch")],
)
def test_trained_is_loaded_is_merged(
    twins: Twins, tiny_world: Path, tmp_path: Path, quantization: str, start: bool | str, optim: str
) -> None:
    base = twins("llava")
    recipe = sft_recipe(
        tmp_path,
        base,
        tiny_world,
        sft_rows(tiny_world)[:8],
        lora={**LOFTQ, "init_lora_weights": start},
        model__quantization=quantization,
        trainer__max_steps=2,
        trainer__learning_rate=1e-2,
        trainer__optim=optim,
    )
    adapter = sft.run(load_recipe(sft.Recipe, recipe)).final / "adapter"
    values = {
        "run_dir": tmp_path,
        "model": {"path": str(base)},
        "adapter": adapter,
        "verify": {"image_root": tiny_world / "images" / "dev", "num_images": 1, "max_tokens": 2},
        "serve_check": False,
        "dtype": "float32",
    }
    merged = merge.run(validate(merge.Recipe, values, where="test"))
    assert merged.manifest()["metrics"]["merged_into"] == quantization

    rounded = ModelSection.model_validate({"path": str(base), **NF4, "quantization": quantization})
    processor = load_processor(rounded)
    probes = make_probes(tiny_world / "images" / "test", 2, ["Describe the image."])
    plain, trained, written = (
        logits(model, processor, probes)
        for model in (
            load_model(rounded),
            PeftModel.from_pretrained(load_model(rounded), str(adapter)).eval(),
            load_model(ModelSection(path=str(merged.final / "checkpoint"), dtype="float32")),
        )
    )
    assert largest_difference(trained, written) < largest_difference(trained, plain) / 4


def test_where_it_makes_no_sense_it_is_refused(twins: Twins, tiny_world: Path, tmp_path: Path) -> None:
    for quantization, reason in (("none", "not rounded"), ("nf4", "starts elsewhere than adapter off")):
        recipe = dpo_recipe(
            tmp_path / quantization, twins("llava"), tiny_world, lora=LOFTQ, model__quantization=quantization
        )
        with pytest.raises(AlignError, match=reason):
            dpo.run(load_recipe(dpo.Recipe, recipe))
    recipe = sft_recipe(
        tmp_path / "vision",
        twins("llava"),
        tiny_world,
        lora={**LOFTQ, "components": ["vision"]},
        model__quantization="nf4",
    )
    with pytest.raises(AlignError, match="sits on layers that are not quantised"):
        sft.run(load_recipe(sft.Recipe, recipe))
