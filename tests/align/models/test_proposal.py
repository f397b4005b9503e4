"""Unknown families: right, or refused by name; never wrong, and never text only in silence."""

from __future__ import annotations

from typing import Any

import pytest

from align.errors import AlignError
from align.models.families import FAMILIES
from align.models.family import Component, Modules
from align.models.loading import FamilySection, ModelSection, is_vision_language
from align.models.lora_places import places
from align.models.proposal import inspect

# Read by hand in the classes: model_type, tower, its layers inside of it (-: all of it), what is run on its
# output, and the decoder.
RIGHT = """
aria model.vision_tower encoder model.multi_modal_projector model.language_model
aya_vision model.vision_tower encoder model.multi_modal_projector model.language_model
blip vision_model encoder - text_decoder
blip-2 vision_model encoder qformer language_projection language_model
cohere2_vision model.vision_tower encoder model.multi_modal_projector model.language_model
cohere_compass model.visual blocks model.visual.merger model.visual.deepstack_merger_list model.language_model
cosmos3_edge model.visual encoder model.projector model.language_model
cosmos3_omni model.visual blocks model.visual.merger model.visual.deepstack_merger_list model.language_model
deepseek_ocr2 model.vision_tower - model.multi_modal_projector model.language_model
deepseek_vl model.vision_model encoder model.aligner model.language_model
ernie4_5_vl_moe model.vision_tower blocks model.resampler_model model.language_model
exaone4_5 model.visual blocks model.visual.merger model.language_model
florence2 model.vision_tower - model.multi_modal_projector model.language_model
gemma3 model.vision_tower encoder model.multi_modal_projector model.language_model
gemma4 model.vision_tower encoder model.embed_vision model.language_model
glm46v model.visual blocks model.visual.merger model.language_model
glm4v model.visual blocks model.visual.merger model.language_model
glm4v_moe model.visual blocks model.visual.merger model.language_model
glm5_next model.visual blocks model.visual.merger model.language_model
glm_ocr model.visual blocks model.visual.merger model.language_model
glmga model.visual blocks model.visual.merger model.language_model
got_ocr2 model.vision_tower layers model.multi_modal_projector model.language_model
granite4_vision model.vision_tower encoder model.layerwise_projectors model.spatial_projectors \
model.language_model
hunyuan_vl model.vision_tower layers model.vision_tower.patch_merger model.language_model
hyperclovax_vision_v2 model.vision_model blocks model.projector model.language_model
idefics2 model.vision_model encoder model.connector model.text_model
idefics3 model.vision_model encoder model.connector model.text_model
inkling_mm_model model.vision_tower - - model.language_model
instructblip vision_model encoder qformer language_projection language_model.model.decoder
instructblipvideo vision_model encoder qformer language_projection language_model.model.decoder
internvl model.vision_tower encoder model.multi_modal_projector model.language_model
janus model.vision_model encoder model.aligner model.language_model
kimi_k25 model.vision_tower layers model.mm_projector model.language_model
kosmos-2 vision_model model.encoder image_to_text_projection text_model
kosmos-2.5 vision_model encoder image_to_text_projection text_model
lfm2_vl model.vision_tower encoder model.multi_modal_projector model.language_model
lighton_ocr model.vision_encoder transformer model.vision_projection model.language_model
llama4 vision_model model multi_modal_projector language_model
llava model.vision_tower encoder model.multi_modal_projector model.language_model
llava_next model.vision_tower encoder model.multi_modal_projector model.language_model
llava_next_video model.vision_tower encoder model.multi_modal_projector model.language_model
llava_onevision model.vision_tower encoder model.multi_modal_projector model.language_model
minicpmv4_6 model.vision_tower encoder model.merger model.language_model
minicpmv4_7 model.vision_tower encoder model.merger model.language_model
minimax_m3_vl model.vision_tower layers model.multi_modal_projector model.language_model
mistral3 model.vision_tower transformer model.multi_modal_projector model.language_model
mllama model.vision_model - model.multi_modal_projector model.language_model
muse_glimmer model.vision_tower layers model.vision_adapter model.vision_projection model.language_model
nemotron_h_omni vision_model encoder multi_modal_projector language_model
ovis2 model.vision_tower transformer.encoder model.visual_embeddings_table model.language_model
paddleocr_vl model.visual vision_model.encoder model.projector model.language_model
paligemma model.vision_tower encoder model.multi_modal_projector model.language_model
pp_chart2table model.vision_tower layers model.multi_modal_projector model.language_model
qianfan_ocr model.vision_tower layers model.multi_modal_projector model.language_model
qwen2_5_omni_thinker visual blocks visual.merger model
qwen2_5_vl model.visual blocks model.visual.merger model.language_model
qwen2_vl model.visual blocks model.visual.merger model.language_model
qwen3_5 model.visual blocks model.visual.merger model.language_model
qwen3_5_moe model.visual blocks model.visual.merger model.language_model
qwen3_omni_moe_thinker visual blocks visual.merger_list visual.merger model
qwen3_vl model.visual blocks model.visual.merger model.visual.deepstack_merger_list model.language_model
qwen3_vl_moe model.visual blocks model.visual.merger model.visual.deepstack_merger_list model.language_model
shieldgemma2 model.vision_tower encoder model.multi_modal_projector model.language_model
smolvlm model.vision_model encoder model.connector model.text_model
step3p7 model.vision_model layers model.multi_modal_projector model.language_model
video_llama_3 model.vision_model encoder model.projector model.language_model
video_llava model.image_tower encoder model.multi_modal_projector model.language_model
vipllava model.vision_tower encoder model.multi_modal_projector model.language_model
"""
# No part is called an image encoder, two are, or the decoder stands around it.
REFUSED = {
    "chameleon": "image encoder",
    "deepseek_vl_hybrid": "two image encoders, model.vision_model and model.high_res_vision_model",
    "emu3": "image encoder",
    "fuyu": "image encoder",
    "gemma4_unified": "image encoder",
    "git": "image encoder",
    "idefics": "no decoder apart",
    "pi0": "image encoder",
    "pix2struct": "image encoder",
    "pp_formulanet": "no token embedding",
    "t5gemma2": "image encoder",
    "udop": "image encoder",
}
TEXT_ONLY = {"mistral4": "model"}
# What no small configuration was found for, or wants a package that is not installed.
NOT_BUILT = {
    "diffusion_gemma": "its text config has no sizes of its own",
    "evolla": "not registered for this kind of model",
    "fast_vlm": "timm",
    "gemma3n": "timm",
    "perception_lm": "timm",
    "qwen4_exp": "its sizes must fit each other in ways that its defaults do not",
    "vision-encoder-decoder": "two models of the user's choice",
}
_FULL = {"rope_type": "default", "rope_theta": 1e4}
# Where the defaults build nothing.
CHANGES: dict[str, dict[str, Any]] = {
    "aya_vision": {
        "vision_config": {"model_type": "siglip_vision_model", "num_attention_heads": 16, "hidden_size": 1152}
    },
    "chameleon": {"vocabulary_map": {"<image>": 4}},
    "cohere_compass": {
        "text_config": {
            "num_hidden_layers": 4,
            "layer_types": ["full_attention"] * 4,
            "rope_parameters": {"full_attention": _FULL, "sliding_attention": _FULL},
        }
    },
    "deepseek_ocr2": {
        "text_config": {
            "num_hidden_layers": 4,
            "mlp_layer_types": ["dense"] * 4,
            "n_group": 1,
            "topk_group": 1,
            "num_experts_per_tok": 2,
        },
        "vision_config": {
            "sam_config": {"downsample_channels": [512, 896], "mlp_dim": 3072},
            "encoder_config": {},
        },
    },
    "emu3": {"vocabulary_map": {"<image>": 4}},
    "gemma4": {"vision_config": {}, "audio_config": {}},
    "gemma4_unified": {"vision_config": {}},
    "granite4_vision": {
        "text_config": {},
        "image_grid_pinpoints": [[384, 384]],
        "downsample_rate": "4/8",
        "deepstack_layer_map": [[0, 0]],
        "spatial_target_layers": [1],
    },
    "hunyuan_vl": {"text_config": {"head_dim": 128}},
    "idefics3": {"pad_token_id": 0, "text_config": {"model_type": "llama", "pad_token_id": 0}},
    "smolvlm": {"pad_token_id": 0, "text_config": {"model_type": "llama", "pad_token_id": 0}},
}


def right() -> dict[str, Modules]:
    """The table, without what the proposal derives: single layers and cross-attention."""
    found = {}
    for line in RIGHT.strip().splitlines():
        model_type, tower, layers, *connector, language = line.split()
        found[model_type] = Modules(
            vision=tower if layers == "-" else f"{tower}.{layers}",
            tower=tower,
            connector=() if connector == ["-"] else tuple(connector),
            language=language,
            layers=(),
            cross_attention="",
        )
    return found


def built(model_type: str) -> Any:
    """With four layers a stack where the class has more, on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.for_model(model_type, **CHANGES.get(model_type, {}))
    if model_type not in CHANGES:
        _shrink(config)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def _shrink(config: Any) -> None:
    for value in vars(config).values():
        if hasattr(value, "to_dict"):
            _shrink(value)
    for name in ("num_hidden_layers", "depth", "num_layers", "encoder_layers", "decoder_layers"):
        if isinstance(config.__dict__.get(name), int) and config.__dict__[name] > 4:
            setattr(config, name, 4)
    if config.__dict__.get("layer_types"):
        config.layer_types = config.layer_types[:4]
    for name in ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"):
        if isinstance(config.__dict__.get(name), int) and config.__dict__[name] > 8:
            setattr(config, name, 8)


def test_every_class_of_the_library_is_spoken_of() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    known = [*right(), *REFUSED, *TEXT_ONLY, *NOT_BUILT]
    assert len(known) == len(set(known))
    assert set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES) <= set(known)


@pytest.mark.parametrize("model_type", sorted(right()))
def test_a_proposal_is_right(model_type: str) -> None:
    """As read by hand; each matrix is in one component, and each component's LoRA stays inside of it."""
    model, wanted = built(model_type), right()[model_type]
    found = inspect(model)
    assert (found.tower, found.vision, found.connector, found.language) == (
        wanted.tower,
        wanted.vision,
        wanted.connector,
        wanted.language,
    )
    components: list[Component] = ["vision", "connector", "language"]
    if found.cross_attention:
        components.append("cross_attention")
    hit: list[str] = []
    for component in components:
        sorted_out = places(model, found, component, "attention+mlp")
        hit += sorted_out.chosen
        prefixes = {"vision": (wanted.vision,), "connector": wanted.connector, "language": (wanted.language,)}
        for name in sorted_out.chosen if component in prefixes else ():
            assert any(name == one or name.startswith(f"{one}.") for one in prefixes[component] if one), name
    assert len(hit) == len(set(hit))


@pytest.mark.parametrize("model_type", sorted(REFUSED))
def test_what_a_model_does_not_say_is_to_be_named_by_hand(model_type: str) -> None:
    with pytest.raises(AlignError, match=REFUSED[model_type]):
        inspect(built(model_type))


def test_text_only_is_what_takes_no_images() -> None:
    for model_type, language in TEXT_ONLY.items():
        found = inspect(built(model_type))
        assert (found.tower, found.vision, found.connector, found.language) == (None, None, (), language)


def test_the_families_that_are_known_are_proposed_as_they_stand() -> None:
    for model_type in set(FAMILIES) & set(right()):
        modules = FAMILIES[model_type].modules
        assert (modules.tower, modules.language) == (right()[model_type].tower, right()[model_type].language)


def test_a_confirmed_family_does_not_lose_its_pictures(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gemma9", "vision_config": {"model_type": "x"}}')
    section = ModelSection(path=str(tmp_path), family=FamilySection(language="model.language_model"))
    with pytest.raises(AlignError, match=r"names no vision(.|\n)*model\.family"):
        is_vision_language(section)
