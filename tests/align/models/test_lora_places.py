"""Every weight matrix of a component is adapted or named; nothing of another component is hit."""

from __future__ import annotations

import math
from typing import Any

import pytest

from align.errors import AlignError
from align.models.family import Modules
from align.models.loading import ModelSection, load_model
from align.models.lora_places import Places, as_pattern, matching, places
from align.models.weight_matrices import weight_matrices
from align.tuning.lora import LoraSection, lora_plan
from align.tuning.placement import placement
from tests.twins import Twins


def built(model_type: str, **changes: Any) -> Any:
    """The class's default configuration, without weights."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.for_model(model_type, **changes)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


LANGUAGE = Modules(
    vision="model.visual.blocks",
    tower="model.visual",
    connector=("model.visual.merger",),
    language="model.language_model",
    layers=(),
    cross_attention="",
)


def counted(names: tuple[str, ...]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in names:
        leaf = ".".join(name.split(".")[4:])
        found[leaf] = found.get(leaf, 0) + 1
    return found


@pytest.mark.parametrize(
    ("model_type", "adapted", "left"),
    [
        ("qwen3_5", 248, {}),
        ("glm4v", 240, {}),
        ("glm46v", 240, {}),
        ("minicpmv4_6", 248, {}),
        (
            "qwen3_5_moe",
            310,  # 350 linear layers, of which 40 weigh the shared expert
            {"mlp.shared_expert_gate": 40, "mlp.gate": 40}
            | {"mlp.experts.gate_up_proj": 40, "mlp.experts.down_proj": 40},
        ),
        (
            "qwen3_vl_moe",
            96,
            {"mlp.gate": 24, "mlp.experts.gate_up_proj": 24, "mlp.experts.down_proj": 24},
        ),
    ],
)
def test_all_linear_layers_of_the_language_model(model_type: str, adapted: int, left: dict[str, int]) -> None:
    found = places(built(model_type), LANGUAGE, "language", "attention+mlp")
    assert len(found.chosen) == adapted
    assert counted(found.unmatched) == left
    assert all(name.startswith("model.language_model.layers.") for name in found.chosen)
    assert not (found.not_asked or found.outside or found.unread)


def test_the_two_blocks_of_a_hybrid_decoder_by_hand() -> None:
    """32 layers: 24 of linear attention with five projections, 8 of softmax attention with four."""
    model = built("qwen3_5")
    attention = places(model, LANGUAGE, "language", "attention")
    names = ("in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj")
    wanted = {f"linear_attn.{name}": 24 for name in names}
    wanted |= {f"self_attn.{name}_proj": 8 for name in "qkvo"}
    assert counted(attention.chosen) == wanted
    assert counted(attention.not_asked) == {f"mlp.{name}_proj": 32 for name in ("gate", "up", "down")}
    mlp = places(model, LANGUAGE, "language", "mlp")
    assert (mlp.chosen, mlp.not_asked) == (attention.not_asked, attention.chosen)


def test_wrapped_projections_and_per_layer_embeddings() -> None:
    """Gemma 4: the matrix of a clippable wrapper is the layer inside it; the per-layer input has its own."""
    model = built("gemma4", vision_config={}, audio_config={})
    towers = {name.split(".")[1] for name, _ in model.named_modules() if name.endswith("q_proj.linear")}
    assert towers == {"vision_tower", "audio_tower"}
    modules = Modules(
        vision="model.vision_tower.encoder",
        tower="model.vision_tower",
        connector=("model.embed_vision",),
        language="model.language_model",
        layers=(),
        cross_attention="",
    )
    vision = places(model, modules, "vision", "attention")
    assert {name.rpartition(".")[2] for name in vision.chosen} == {"linear"}
    assert not vision.unmatched
    language = places(model, modules, "language", "attention+mlp")
    assert {"per_layer_input_gate", "per_layer_projection"} <= {
        name.split(".")[-1] for name in language.chosen
    }
    assert not language.unmatched


def test_layers_that_the_model_never_reads() -> None:
    """LLaVA-1.5 reads the output of the layer before the last."""
    modules = Modules(
        vision="model.vision_tower.encoder",
        tower="model.vision_tower",
        connector=("model.multi_modal_projector",),
        language="model.language_model",
        layers=(),
        cross_attention="",
    )
    model = built("llava")
    found = places(model, modules, "vision", "attention+mlp")
    assert model.config.vision_feature_layer == -2 and len(found.chosen) == 23 * 6
    assert {name.split(".")[4] for name in found.unread} == {"23"} and len(found.unread) == 6
    names = [name for name, _ in model.named_modules()]
    assert matching(as_pattern(found.chosen, names), names) == sorted(found.chosen, key=names.index)
    for read, last in ((-1, 23), (5, 4), ([-2, 6], 22)):
        model.config.vision_feature_layer = read
        chosen = places(model, modules, "vision", "attention").chosen
        assert max(int(name.split(".")[4]) for name in chosen) == last


def test_what_is_named_is_left_out_and_what_is_not_stops_the_stage(twins: Twins) -> None:
    model = load_model(ModelSection(path=str(twins("qwen2_vl"))))
    left = LoraSection.model_validate({"leave_out": ["down_proj", "self_attn.k_proj"]})
    (part,) = lora_plan(left, model).parts
    assert part.matrices is not None
    assert counted(part.matrices.left_out) == {"mlp.down_proj": 2, "self_attn.k_proj": 2}
    assert counted(part.modules) == {
        **{f"self_attn.{name}_proj": 2 for name in "qvo"},
        **{f"mlp.{name}_proj": 2 for name in ("gate", "up")},
    }
    with pytest.raises(AlignError, match=r"names nothing that would train: 'k_pro'(.|\n)*self_attn\.k_proj"):
        lora_plan(LoraSection.model_validate({"leave_out": ["k_pro"]}), model)


def test_a_router_and_experts_stop_the_stage_until_somebody_speaks_of_them(twins: Twins) -> None:
    import torch

    model = load_model(ModelSection(path=str(twins("qwen2_vl"))))
    for layer in model.model.language_model.layers:
        layer.mlp.register_module("gate", torch.nn.Linear(64, 4, bias=False))
        layer.mlp.experts = torch.nn.Module()
        layer.mlp.experts.down_proj = torch.nn.Parameter(torch.zeros(4, 8, 8))
    with pytest.raises(AlignError) as caught:
        lora_plan(LoraSection(), model)
    assert "4 weight matrices of language would stay untrained" in str(caught.value)
    assert "lora.leave_out: [mlp.gate, mlp.experts.down_proj]" in str(caught.value)
    (part,) = lora_plan(
        LoraSection.model_validate({"leave_out": ["mlp.gate", "mlp.experts.down_proj"]}), model
    ).parts
    assert part.matrices is not None and not part.matrices.unmatched
    assert part.matrices.lines("language")[2:] == ["  left out: mlp.gate 2, mlp.experts.down_proj 2"]
    experts = {"leave_out": ["gate"], "target_parameters": ["experts.down_proj"]}
    (part,) = lora_plan(LoraSection.model_validate(experts), model).parts
    assert part.matrices is not None
    assert counted(part.matrices.parameters) == {"mlp.experts.down_proj": 2}


def test_the_table_says_what_each_matrix_does(twins: Twins, capsys: pytest.CaptureFixture[str]) -> None:
    from peft import get_peft_model

    model = load_model(ModelSection(path=str(twins("llava"))))
    section = LoraSection.model_validate({"components": ["language", "vision"], "blocks": "attention"})
    plan = lora_plan(section, model)
    placement(get_peft_model(model, plan.config), plan.parts).show()
    said = "".join(capsys.readouterr())
    assert "language: 8 of 14 weight matrices" in said
    assert "  adapted: self_attn.q_proj 2, self_attn.k_proj 2" in said
    assert "  not asked for: mlp.gate_proj 2, mlp.up_proj 2, mlp.down_proj 2" in said
    assert "  never read by the model: " in said


def test_a_matrix_stands_in_one_place() -> None:
    model = built("qwen3_5_moe")
    names = [name for name, _ in weight_matrices(model, LANGUAGE, "language")]
    found = places(
        model, LANGUAGE, "language", "mlp", leave_out=["gate"], target_parameters=["experts.down_proj"]
    )
    stood = [name for field in vars(found).values() for name in field]
    assert sorted(stood) == sorted(names) and len(set(names)) == len(names) == 350 + 120
    moved = found.with_chosen(found.not_asked[:3])
    assert math.fsum(map(len, vars(moved).values())) == len(names)
    assert moved.chosen == found.not_asked[:3] and set(found.chosen) <= set(moved.not_asked)
    assert Places().lines("vision") == ["vision: 0 of 0 weight matrices"]


def test_a_linear_layer_called_an_embedding_is_named_and_not_passed_over(twins: Twins) -> None:
    import torch

    model = load_model(ModelSection(path=str(twins("qwen2_vl"))))
    model.model.language_model.layers[0].register_module("token_mixer", torch.nn.Linear(64, 64))
    with pytest.raises(
        AlignError, match=r"1 weight matrices of language would stay untrained: token_mixer 1"
    ):
        lora_plan(LoraSection(), model)
