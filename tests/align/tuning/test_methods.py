"""Each method on a tiny LLaVA: two steps of the real stage, then loaded, merged or refused, same logits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from align import dpo, merge, sft
from align.config.recipe import load_recipe, validate
from align.errors import AlignError
from align.models.loading import ModelSection, load_model
from align.training.loop import train
from align.tuning.lora import LoraSection, lora_plan
from align.tuning.methods import method_plan
from tests.repository import REPO
from tests.training_recipes import dpo_recipe, preference_rows, sft_recipe, sft_rows
from tests.twins import Twins

SMALL = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0}


@dataclass(frozen=True)
class Case:
    """One line of docs/methods.md.

    Attributes:
        changes: of the recipe, `section__key`.
        sft: whether `align sft` trains it; else why not.
        merges: whether `align merge` folds it in; else why not.
        dpo: whether `align dpo` trains it; else why not.
        nf4: whether it trains on a 4-bit language model; else why not.
    """

    changes: dict[str, Any] = field(default_factory=dict)
    sft: bool | str = True
    merges: bool | str = True
    dpo: bool | str = True
    nf4: bool | str = True


def _lora(**more: Any) -> dict[str, Any]:
    return {"lora": {**SMALL, **more}}


_BASE = "changes the base's weights"
_START = "cannot start as its reference"
CASES = {
    "LoRA": Case(_lora()),
    "rsLoRA": Case(_lora(use_rslora=True)),
    "DoRA": Case(_lora(use_dora=True)),
    "gaussian": Case(_lora(init_lora_weights="gaussian")),
    "orthogonal": Case(_lora(init_lora_weights="orthogonal"), nf4="not quantised"),
    "EVA": Case(_lora(init_lora_weights="eva")),
    "PiSSA": Case(_lora(init_lora_weights="pissa"), dpo=_BASE, nf4=_BASE),
    "OLoRA": Case(_lora(init_lora_weights="olora"), dpo=_BASE, nf4=_BASE),
    "CorDA": Case(_lora(init_lora_weights="corda"), dpo=_BASE, nf4=_BASE),
    "LoRA-GA": Case(_lora(init_lora_weights="lora_ga"), dpo=_BASE, nf4=_BASE),
    "LoftQ": Case(_lora(init_lora_weights="loftq"), sft="this base is not rounded", dpo="not rounded"),
    "IA3": Case({"method": "ia3"}),
    "TinyLoRA": Case(
        {"method": "tinylora", "tinylora": {"r": 2, "u": 4}}, merges="the whole base", nf4="are quantised"
    ),
    "PEANuT": Case({"method": "peanut", "peanut": {"r": 4}}, merges="the whole base", nf4="are quantised"),
    "BEFT": Case({"method": "beft", "beft": {"components": ["connector"]}}, merges="the whole base"),
    "prefix tuning": Case(
        {"method": "prefix_tuning", "prefix_tuning": {"num_virtual_tokens": 4}},
        merges="prefix tuning",
        dpo=_START,
    ),
    "P-tuning": Case(
        {"method": "p_tuning", "p_tuning": {"num_virtual_tokens": 4}}, merges="P-tuning", dpo=_START
    ),
    "prompt tuning": Case(
        {"method": "prompt_tuning", "prompt_tuning": {"num_virtual_tokens": 4}},
        merges="prompt tuning",
        dpo=_START,
    ),
    "BitFit": Case(
        {"method": "bitfit", "full": {"components": ["connector", "vision"]}},
        merges="checkpoint",
        nf4="are quantised",
    ),
    "full": Case(
        {"method": "full", "full": {"components": ["language", "connector", "vision"]}},
        merges="checkpoint",
        nf4="are quantised",
    ),
}
NO_ADAPTER = ("bitfit", "full")


def _probe(model: Any) -> Any:
    """Logits on a fixed row with an image, in evaluation mode."""
    import torch

    ids = torch.tensor([[1, 5, *[model.config.image_token_id] * 16, 9, 11, 7]])
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    was_training = model.training
    with torch.no_grad():
        found = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels).logits
    model.train(was_training)
    return found[:, -ids.shape[1] :]  # without the places of virtual tokens


def _fresh(path: Path) -> Any:
    return load_model(ModelSection(path=str(path), dtype="float32"))


def _difference(one: Any, other: Any) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize("name", CASES)
def test_trained_is_loaded_is_merged(
    name: str, twins: Twins, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel

    case, own = CASES[name], train
    trained: list[Any] = []

    def watched(trainer: Any, *rest: Any) -> dict[str, float]:
        results = own(trainer, *rest)
        trained.append(_probe(trainer.model))
        return results

    monkeypatch.setattr("align.training.stage.train", watched)
    recipe = sft_recipe(
        tmp_path,
        twins("llava"),
        tiny_world,
        sft_rows(tiny_world)[:8],
        trainer__max_steps=2,
        trainer__learning_rate=2e-2,
        **case.changes,
    )
    if isinstance(case.sft, str):
        with pytest.raises(AlignError, match=case.sft):
            sft.run(load_recipe(sft.Recipe, recipe))
        return
    run = sft.run(load_recipe(sft.Recipe, recipe)).final
    base = _probe(_fresh(twins("llava")))
    assert _difference(trained[0], base) > 1e-3, "nothing was learnt that the rest could lose"
    if case.changes.get("method") in NO_ADAPTER:
        assert _difference(_probe(_fresh(run / "checkpoint")), trained[0]) < 1e-5
        assert not (run / "adapter").exists()
        return
    loaded = PeftModel.from_pretrained(_fresh(twins("llava")), str(run / "adapter"))
    assert _difference(_probe(loaded), trained[0]) < 2e-4
    values = {
        "run_dir": tmp_path,
        "model": {"path": str(twins("llava"))},
        "adapter": run / "adapter",
        "verify": {"image_root": tiny_world / "images" / "dev", "num_images": 1, "max_tokens": 2},
        "serve_check": False,
        "dtype": "float32",
    }
    merging = validate(merge.Recipe, values, where="test")
    if isinstance(case.merges, str):
        with pytest.raises(AlignError, match=case.merges):
            merge.run(merging)
        return
    merged = merge.run(merging).final
    assert _difference(_probe(_fresh(merged / "checkpoint")), trained[0]) < 2e-4


def _planned(name: str, folder: Path, reference: str = "", quantization: str = "none") -> Any:
    """The plan of a case, and its model, wrapped where PEFT wraps it."""
    from peft import get_peft_model

    values = {"run_dir": "x", "model": {"path": "x"}, "data": {"path": "x", "image_root": "x"}}
    recipe = validate(sft.Recipe, {**values, **CASES[name].changes}, where="test")
    model = load_model(
        ModelSection.model_validate({"path": str(folder), "dtype": "float32", "quantization": quantization})
    )
    plan = method_plan(recipe, model, reference)
    return plan, model if plan.config is None else get_peft_model(model, plan.config)


@pytest.mark.parametrize("name", CASES)
def test_dpo_starts_at_its_reference_or_is_refused(name: str, twins: Twins) -> None:
    expected = CASES[name].dpo
    if isinstance(expected, str):
        with pytest.raises(AlignError, match=expected):
            _planned(name, twins("llava"), reference="it is the adapter off")
        return
    plan, model = _planned(name, twins("llava"), reference="it is the adapter off")
    if plan.config is not None:  # else the reference is a second model
        with model.disable_adapter():
            off = _probe(model)
        assert _difference(_probe(model), off) < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_on_a_4_bit_base_it_learns_or_is_refused(name: str, twins: Twins) -> None:
    import torch

    expected = CASES[name].nf4
    if isinstance(expected, str):
        with pytest.raises(AlignError, match=expected):
            _planned(name, twins("llava"), quantization="nf4")
        return
    _, model = _planned(name, twins("llava"), quantization="nf4")
    ids = torch.tensor([[1, 5, *[model.config.image_token_id] * 16, 9, 11, 7]])
    model(
        input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=torch.rand(1, 3, 32, 32), labels=ids
    ).loss.backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad and p.grad is not None]
    assert (
        gradients
        and all(bool(g.isfinite().all()) for g in gradients)
        and any(bool(g.any()) for g in gradients)
    )


@pytest.mark.parametrize("name", ["full", "IA3"])
def test_dpo_trains(name: str, twins: Twins, tiny_world: Path, tmp_path: Path) -> None:
    """The stage itself holds the loss of its first step against ln 2."""
    recipe = dpo_recipe(
        tmp_path,
        twins("llava"),
        tiny_world,
        preference_rows(tiny_world)[:4],
        trainer__max_steps=1,
        trainer__learning_rate=1e-3,
        **CASES[name].changes,
    )
    assert dpo.run(load_recipe(dpo.Recipe, recipe)).manifest()["metrics"]["steps"] == 1


def test_the_documentation_says_what_is_seen_here() -> None:
    lines = (REPO / "docs" / "methods.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    written = {row[0]: row[2:] for row in rows[1:]}
    seen = {}
    for name, case in CASES.items():
        merged = case.merges if True in (case.sft, case.nf4) else False
        words = ["yes" if cell is True else "no" for cell in (case.sft, case.dpo, case.nf4, merged)]
        seen[name] = [*words[:3], "a checkpoint already" if merged == "checkpoint" else words[3]]
    assert written == seen


def test_layer_replication_is_for_text_only_models(twins: Twins, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel, get_peft_model

    section = LoraSection.model_validate({"r": 4, "layer_replication": [[0, 2], [1, 2]]})
    image = _fresh(twins("llava"))
    with pytest.raises(ValueError, match="Could not locate the layers"):
        get_peft_model(image, lora_plan(section, image).config)
    text = _fresh(twins("llama"))
    model = get_peft_model(text, lora_plan(section, text).config)
    assert len(text.model.layers) == 3
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    model.save_pretrained(str(tmp_path))
    loaded = PeftModel.from_pretrained(_fresh(twins("llama")), str(tmp_path)).eval()
    ids = torch.tensor([[1, 5, 9, 11]])
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
