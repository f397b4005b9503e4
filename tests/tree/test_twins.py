"""Twins are what they stand for: real classes, hub files, one placeholder a feature, facts that hold."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from align.models.families import modules_of
from align.models.family import Component
from align.models.lora_places import places
from tests.twins import IMAGE_TWINS, LEAVE_OUT, TEXT_TWINS, Twins

# How each family's parameters are called on the hub; the first is a tower's.
HUB_NAMES = {
    "llava": ("vision_tower.vision_model.encoder.layers.0", "language_model.model.layers.0"),
    "llava_next": ("vision_tower.vision_model.embeddings", "image_newline", "language_model.lm_head"),
    "llava_onevision": ("vision_tower.vision_model.encoder", "image_newline", "language_model.model"),
    "internvl": ("vision_tower.encoder.layer.0.attention.q_proj", "language_model.model.layers.0"),
    "qwen2_vl": ("visual.blocks.0.attn.qkv", "model.layers.0", "lm_head"),
    "qwen2_5_vl": ("visual.blocks.0.mlp.gate_proj", "model.layers.0", "lm_head"),
    "qwen3_vl_moe": (
        "model.visual.deepstack_merger_list.0",
        "model.language_model.layers.0.mlp.experts.down_proj",
    ),
    "qwen3_5_moe": (
        "model.visual.blocks.0",
        "model.language_model.layers.2.mlp.experts.gate_up_proj",
        "mtp.",
    ),
    "qwen3_vl": ("model.visual.deepstack_merger_list.0", "model.language_model.layers.0", "lm_head"),
    "qwen3_5": ("model.visual.blocks.0", "model.language_model.layers.0.linear_attn.in_proj_qkv", "lm_head"),
    "idefics2": ("model.vision_model.encoder", "model.connector.perceiver_resampler", "model.text_model"),
    "smolvlm": ("model.vision_model.encoder", "model.connector.modality_projection", "model.text_model"),
    "idefics3": ("model.vision_model.encoder", "model.connector.modality_projection", "model.text_model"),
    "gemma3": ("vision_tower.vision_model.encoder.layers.0", "language_model.model.layers.0"),
    "paligemma": ("vision_tower.vision_model.encoder.layers.0", "language_model.model.layers.0"),
    "blip-2": ("vision_model.encoder", "qformer.encoder", "query_tokens", "language_model.model.decoder"),
    "glm4v": ("model.visual.blocks.0.attn.qkv", "model.visual.downsample", "model.language_model.layers.0"),
    "glm46v": ("model.visual.blocks.0.attn.qkv", "model.visual.merger", "model.language_model.layers.0"),
    "gemma4": (
        "model.vision_tower.encoder.layers.0.self_attn.q_proj.linear",
        "model.audio_tower",
        "model.embed_vision",
    ),
    "mistral3": (
        "vision_tower.transformer.layers.0",
        "multi_modal_projector",
        "language_model.model.layers.0",
    ),
    "lfm2_vl": (
        "model.vision_tower.vision_model.encoder",
        "model.multi_modal_projector",
        "model.language_model.layers.0.conv",
    ),
    "exaone4_5": ("model.visual.blocks.0.attn.qkv", "model.visual.merger", "model.language_model.layers.0"),
    "cohere2_vision": ("model.vision_tower.", "model.multi_modal_projector", "model.language_model.layers.0"),
    "minicpmv4_6": (
        "model.vision_tower.vit_merger",
        "model.merger",
        "model.language_model.layers.0.linear_attn",
    ),
    "minicpmv4_7": (
        "model.vision_tower.vit_merger",
        "model.merger",
        "model.language_model.layers.0.linear_attn",
    ),
    "gemma4_unified": ("model.vision_embedder.patch_dense", "model.embed_vision", "model.embed_audio"),
    "muse_glimmer": ("model.vision_tower.layers.0", "model.vision_adapter", "model.language_model.layers.0"),
    "llama": ("model.layers.0.self_attn.q_proj", "lm_head"),
    "qwen2": ("model.layers.0.self_attn.q_proj", "lm_head"),
    "gpt2": ("transformer.h.0.attn.c_attn",),
}
ANSWER = "A cat."
# What a family writes between an answer and the end of its turn.
BEFORE_THE_END = {"cohere2_vision": "<|END_RESPONSE|>"}


def _image(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 70, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _keys(folder: Path) -> set[str]:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


def _load(folder: Path, name: str) -> tuple[Any, Any]:
    """The model, complete from its files, and its processor."""
    import transformers

    if name in TEXT_TWINS:
        kinds = transformers.AutoModelForCausalLM, transformers.AutoTokenizer
    else:
        kinds = transformers.AutoModelForImageTextToText, transformers.AutoProcessor
    loaded: Any = kinds[0].from_pretrained(folder, output_loading_info=True)
    model, info = loaded
    assert not any(info.values()), info
    processor: Any = kinds[1].from_pretrained(folder)
    if name == "blip-2":  # its processor's constructor drops the template; the tokenizer has it
        processor.chat_template = processor.tokenizer.chat_template
    return model.eval(), processor


def _turns(name: str) -> list[dict[str, Any]]:
    question: list[dict[str, Any]] = [{"type": "text", "text": "What is this?"}]
    if name in IMAGE_TWINS:
        question = [{"type": "image"}, *question]
    answer = [{"type": "text", "text": ANSWER}]
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize("name", [*IMAGE_TWINS, *TEXT_TWINS])
def test_files_are_the_hubs_and_stay_so(twins: Twins, name: str, tmp_path: Path) -> None:
    keys = _keys(twins(name))
    for prefix in HUB_NAMES[name]:
        assert any(key.startswith(prefix) for key in keys), f"{prefix}: {sorted(keys)[:5]}"
    model, _ = _load(twins(name), name)
    assert model.config.model_type == name
    assert model.num_parameters() < 400_000
    config = json.loads((twins(name) / "config.json").read_text())
    assert config["architectures"] == [type(model).__name__]
    model.save_pretrained(tmp_path)
    # transformers does not load what guesses further tokens; `align merge` copies it
    assert _keys(tmp_path) == {key for key in keys if not key.startswith("mtp.")}


@pytest.mark.parametrize("name", IMAGE_TWINS)
def test_placeholders_are_features_and_the_image_is_seen(twins: Twins, name: str) -> None:
    import torch

    model, processor = _load(twins(name), name)
    text = processor.apply_chat_template(_turns(name), tokenize=False)
    batches = [processor(text=[text], images=[[_image(seed)]], return_tensors="pt") for seed in (0, 1)]
    for batch in batches:
        batch.pop("labels", None)
    placeholder = getattr(model.config, "image_token_id", None) or model.config.image_token_index
    with torch.no_grad():
        pixels = {k: v for k, v in batches[0].items() if k not in ("input_ids", "attention_mask")}
        pixels = {k: v for k, v in pixels.items() if "token_type" not in k}
        features = model.get_image_features(**pixels).pooler_output
        logits = [model(**batch).logits for batch in batches]
    rows = torch.cat(list(features)) if isinstance(features, (list, tuple)) else features
    counted = int((batches[0]["input_ids"] == placeholder).sum())
    assert counted == rows.reshape(-1, rows.shape[-1]).shape[0]
    assert batches[0]["input_ids"].equal(batches[1]["input_ids"])
    assert (logits[0][0, -1] - logits[1][0, -1]).abs().max() > 0.01


@pytest.mark.parametrize("name", [*IMAGE_TWINS, *TEXT_TWINS])
def test_the_template_marks_the_answer_and_its_end(twins: Twins, name: str) -> None:
    _, processor = _load(twins(name), name)
    tokenizer = getattr(processor, "tokenizer", processor)
    turns = _turns(name)
    prompt = processor.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    whole = processor.apply_chat_template(turns, tokenize=False)
    assert whole.startswith(prompt)
    end = BEFORE_THE_END.get(name, "") + tokenizer.eos_token
    assert whole.removeprefix(prompt).rstrip("\n") == ANSWER + end
    template = processor.chat_template
    marked = re.sub(r"\{%-? (end)?generation %\}", r"\1@", template)
    assert marked.count("@") == 2
    assert set(tokenizer.all_special_tokens) >= {tokenizer.eos_token, tokenizer.pad_token}


@pytest.mark.parametrize("name", [*IMAGE_TWINS, *TEXT_TWINS])
def test_family_facts_hold(twins: Twins, name: str) -> None:
    import torch
    from transformers.pytorch_utils import Conv1D

    model, _ = _load(twins(name), name)
    modules = modules_of(name)
    linear = [key for key, module in model.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)]
    components: list[Component] = ["vision", "connector", "language"] if modules.vision else ["language"]
    for component in components:
        found = places(model, modules, component, "attention+mlp", LEAVE_OUT.get(name, ()))
        hits = found.chosen
        hits = found.chosen
        assert not found.unmatched or (name, component) == ("gemma3", "connector")
        # Gemma 3's projector is a bare matrix, no layer
        assert hits or (name, component) == ("gemma3", "connector")
        assert set(hits) <= set(linear)
        assert {modules.component_of(key) for key in hits} <= {component}
