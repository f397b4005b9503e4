"""LoRA by component: what was asked for is what was hit, at its own rank and rate; the reference stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align import dpo, sft
from align.config.recipe import load_recipe, validate
from align.errors import AlignError, RecipeError
from align.models import families
from align.models.families import FAMILIES
from align.models.loading import ModelSection, load_model
from align.training.loop import train
from align.tuning.lora import LoraSection, lora_plan
from align.tuning.placement import place_dropout, placement
from tests.training_recipes import dpo_recipe, preference_rows, sft_recipe
from tests.twins import Twins

THREE: dict[str, Any] = {
    "language": {"r": 4, "lora_alpha": 8, "target": "attention", "lora_dropout": 0.0},
    "vision": {"r": 6, "lora_alpha": 6, "learning_rate": 2e-4, "lora_dropout": 0.2},
    "connector": {"train": "full", "learning_rate": 5e-3},
}
CONNECTOR_BY_HAND = 32 * 64 + 64 + 64 * 64 + 64  # two linear layers with biases


def _log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "train_log.jsonl").read_text().splitlines()]


def _section(components: Any, **more: Any) -> LoraSection:
    return LoraSection.model_validate({"components": components, **more})


def _wrapped(folder: Path, section: LoraSection) -> tuple[Any, Any]:
    from peft import get_peft_model

    model = load_model(ModelSection(path=str(folder)))
    plan = lora_plan(section, model)
    return get_peft_model(model, plan.config), plan


def test_ranks_alphas_and_dropout_are_each_components_own(twins: Twins) -> None:
    from peft.tuners.lora import LoraLayer

    model, plan = _wrapped(twins("llava"), _section(THREE))
    place_dropout(model, plan.parts)
    where = placement(model, plan.parts)
    layers = {name: m for name, m in model.get_base_model().named_modules() if isinstance(m, LoraLayer)}
    found = {
        (
            name.split(".")[1],
            layer.r["default"],
            layer.scaling["default"],
            getattr(layer.lora_dropout["default"], "p", 0.0),
        )
        for name, layer in layers.items()
    }
    assert found == {
        ("language_model", 4, 2.0, 0.0),
        ("vision_tower", 6, 1.0, 0.2),
    }
    rows = {row.component: row for row in where.components}
    assert set(rows) == {"language", "vision", "connector"}
    assert rows["language"].num_modules == 2 * 4  # two layers of q, k, v, o
    assert rows["language"].trainable == 2 * 4 * ((64 + 64) * 2 + (64 + 32) * 2)
    assert (
        rows["vision"].num_modules == 6
    )  # of two layers the model reads the first (vision_feature_layer -2)
    assert (rows["connector"].trainable, rows["connector"].ranks) == (CONNECTOR_BY_HAND, ())
    assert sum(row.trainable for row in where.components) == where.trainable
    table = where.table(1e-4)
    assert [line.split()[0] for line in table] == ["component", "connector", "language", "vision"]
    assert table[1].split()[-2:] == ["full", "0.005"]
    assert table[2].split()[-2:] == ["4", "0.0001"]


def test_the_short_form_is_what_it_was(twins: Twins) -> None:
    model, plan = _wrapped(twins("llava"), _section(["language", "vision"], r=4, lora_alpha=8))
    assert not plan.config.rank_pattern and plan.config.modules_to_save is None
    assert {row.component: row.ranks for row in placement(model, plan.parts).components} == {
        "language": (4,),
        "vision": (4,),
    }


@pytest.mark.parametrize("family", ["qwen3_vl", "gemma3", "idefics2", "blip-2"])
def test_a_connector_trains_whole_in_each_form_it_has(twins: Twins, family: str) -> None:
    """A merger list inside the tower, a matrix with a norm, a perceiver, a Q-Former."""
    model, plan = _wrapped(twins(family), _section({"language": {}, "connector": {"train": "full"}}))
    rows = {row.component: row for row in placement(model, plan.parts).components}
    base = load_model(ModelSection(path=str(twins(family))))
    expected = sum(p.numel() for name in plan.parts[1].modules for p in base.get_submodule(name).parameters())
    assert rows["connector"].trainable == expected > 0


@pytest.mark.parametrize(
    ("components", "message"),
    [
        ({"language": {"target_modules": r".*\.q_proj"}}, r"language reaches out of it: model\.vision_tower"),
        ({"language": {"target_modules": r"model\.text\..*"}}, r"hits no module(.|\n)*components\.language"),
        ({"connector": {"train": "full"}}, r"all train whole(.|\n)*method: full"),
        ({"language": {"train": "full"}}, r"kept twice(.|\n)*method: full"),
        ({}, "names no component"),
    ],
)
def test_what_cannot_be_placed_is_refused(twins: Twins, components: Any, message: str) -> None:
    model = load_model(ModelSection(path=str(twins("llava"))))
    with pytest.raises(AlignError, match=message):
        lora_plan(_section(components), model)


def test_components_that_overlap_are_refused(twins: Twins) -> None:
    model = load_model(ModelSection(path=str(twins("qwen2_vl"))))
    whole = {"vision": {"train": "full"}, "connector": {"train": "full"}}
    both = {"language": {}, **whole}
    assert lora_plan(_section(both), model).config.modules_to_save == [
        "model.visual.blocks.0",
        "model.visual.blocks.1",
        "model.visual.merger",
    ]
    from align.tuning.lora_components import Part, _check_apart

    tower = Part("vision", ("model.visual",))
    with pytest.raises(AlignError, match=r"vision and connector overlap: model\.visual"):
        _check_apart(tower, Part("connector", ("model.visual.merger",)))


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"components": {"vision": {"rank": 4}}}, r"'lora\.components\.vision\.rank' = 4"),
        ({"components": {"eyes": {}}}, r"lora\.components\.eyes"),
        ({"components": {"connector": {"train": "full", "r": 4}}}, "train: full has no rank"),
        ({"components": {"vision": {}}, "blocks": "mlp"}, "take the place of blocks"),
    ],
)
def test_wrong_sections_stop_before_a_model_is_loaded(lora: Any, message: str) -> None:
    recipe = {"run_dir": "runs/x", "model": {"path": "a/b"}, "data": {"path": "x", "image_root": "y"}}
    with pytest.raises(RecipeError, match=message):
        validate(sft.Recipe, {**recipe, "lora": lora}, where="test")


def test_each_component_has_its_rate_from_first_to_last_step(
    twins: Twins, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    own = train

    def watched(trainer: Any, *rest: Any) -> dict[str, float]:
        results = own(trainer, *rest)
        names = {id(p): name for name, p in trainer.model.named_parameters()}
        optimizer = trainer.optimizer
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                seen[names[id(parameter)]] = (group["initial_lr"], group["lr"], group["weight_decay"])
        return results

    monkeypatch.setattr("align.training.stage.train", watched)
    recipe = sft_recipe(
        tmp_path,
        twins("llava"),
        tiny_world,
        trainer__max_steps=3,
        lora__components=THREE,
        trainer__weight_decay=0.1,
        trainer__lr_scheduler_type="constant",
    )
    run = sft.run(load_recipe(sft.Recipe, recipe))
    assert {(name.split(".")[3], *rates[:2]) for name, rates in seen.items()} == {
        ("language_model", 1e-3, 1e-3),
        ("vision_tower", 2e-4, 2e-4),
        ("multi_modal_projector", 5e-3, 5e-3),
    }
    assert {rates[2] for name, rates in seen.items() if name.endswith("bias")} == {0.0}
    assert {rates[2] for name, rates in seen.items() if name.endswith("weight")} == {0.1}
    trained = run.manifest()["metrics"]["trained_components"]
    assert trained["connector"] == {
        "modules": 1,
        "parameters": CONNECTOR_BY_HAND,
        "ranks": [],
        "learning_rate": 5e-3,
    }


def test_the_reference_has_the_base_connector(twins: Twins, tiny_world: Path, tmp_path: Path) -> None:
    """Adapter off restores what trains whole: shared rows and separate ones agree at every step, and the
    trained model with its adapter off is the base."""
    import torch
    from peft import PeftModel

    rows = preference_rows(tiny_world)[:4]
    logs = []
    for sharing in ("auto", "off"):
        recipe = dpo_recipe(
            tmp_path / sharing,
            twins("llava"),
            tiny_world,
            rows,
            sharing=sharing,
            trainer__max_steps=2,
            lora__components={"language": {"r": 4}, "connector": {"train": "full", "learning_rate": 5e-3}},
        )
        run = dpo.run(load_recipe(dpo.Recipe, recipe)).final
        logs.append(_log(run))
    for ours, theirs in zip(*logs, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=2e-5)
    assert abs(logs[0][-1]["rewards/chosen"]) > 1e-3
    base, fresh = (load_model(ModelSection(path=str(twins("llava")))) for _ in range(2))
    tuned = PeftModel.from_pretrained(fresh, str(tmp_path / "off" / "dpo" / "adapter")).eval()
    ids = torch.tensor([[1, 5, *[base.config.image_token_id] * 16, 9, 11]])
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = base(input_ids=ids, pixel_values=pixels).logits
        on = tuned(input_ids=ids, pixel_values=pixels).logits
        with tuned.disable_adapter():
            off = tuned(input_ids=ids, pixel_values=pixels).logits
    assert torch.equal(off, plain)
    assert (on - plain).abs().max() > 1e-2


def test_what_peft_would_rewrite_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT takes GLM-4.5V's names for those of transformers 4, and would adapt experts in their place."""
    from peft import get_peft_model
    from transformers import Glm4vMoeConfig, Glm4vMoeForConditionalGeneration

    text = {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "n_routed_experts": 4,
        "moe_intermediate_size": 48,
        "vocab_size": 200,
        "pad_token_id": 0,
    }
    tower = {"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 64, "intermediate_size": 96}
    monkeypatch.setattr(families, "_CONFIRMED", {"glm4v_moe": FAMILIES["glm4v"].modules})
    model: Any = Glm4vMoeForConditionalGeneration(Glm4vMoeConfig(text_config=text, vision_config=tower))
    left = ["mlp.gate", "mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    plan = lora_plan(_section(["language"], leave_out=left), model)
    with pytest.raises(AlignError, match=r"PEFT rewrites what LoRA is to hit in model_type glm4v_moe"):
        placement(get_peft_model(model, plan.config), plan.parts)
