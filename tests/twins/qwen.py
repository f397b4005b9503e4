"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3.5: images of any size, positions in three axes (mRoPE)."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from tests.twins.checkpoint import Twin
from tests.twins.llava import PATCH_SIZE, TEXT, token_ids
from tests.twins.templates import QWEN_VL
from tests.twins.tokenizer import build_tokenizer, token_id

_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
# 4 to 16 tokens an image: pixels are counted in merged patches of 16 x 16.
_PIXELS = {"shortest_edge": 4 * 16 * 16, "longest_edge": 16 * 16 * 16}
_STEPS: dict[str, Any] = {"patch_size": PATCH_SIZE, "merge_size": 2, "size": _PIXELS}
_ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]}
_QUARTER = {"mrope_section": [4, 2, 2], "mrope_interleaved": True, "partial_rotary_factor": 0.25}


def _tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer("<|im_end|>", "<|endoftext|>", None, _TOKENS, ["<|im_start|>"])


def _ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {f"{name}_id": token_id(tokenizer, token) for name, token in _TOKENS.items()}


def qwen2_vl() -> Twin:
    """A ViT of `embed_dim`, merged by two, and Qwen2."""
    tokenizer = _tokenizer()
    tower = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2, "patch_size": 8}
    text = {**TEXT, **token_ids(tokenizer), "rope_parameters": _ROPE}
    config = Qwen2VLConfig(vision_config=tower, text_config=text, **_ids(tokenizer))
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(**_STEPS),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**_STEPS),
    )
    return Twin(Qwen2VLForConditionalGeneration(config), processor, QWEN_VL.template())


def qwen2_5_vl() -> Twin:
    """A ViT with window attention in all layers but the last."""
    tokenizer = _tokenizer()
    tower = {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": 64,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": PATCH_SIZE,
        "window_size": 32,
        "fullatt_block_indexes": [1],
    }
    text = {**TEXT, **token_ids(tokenizer), "rope_parameters": _ROPE}
    config = Qwen2_5_VLConfig(vision_config=tower, text_config=text, **_ids(tokenizer))
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(**_STEPS),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**_STEPS),
    )
    return Twin(Qwen2_5_VLForConditionalGeneration(config), processor, QWEN_VL.template())


def qwen3_vl() -> Twin:
    """Features of two ViT layers enter the first language layers again (deepstack); interleaved mRoPE."""
    tokenizer = _tokenizer()
    tower = {
        "depth": 3,
        "hidden_size": 32,
        "out_hidden_size": 64,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": PATCH_SIZE,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }
    rope = {**_ROPE, "mrope_interleaved": True}
    text = {**TEXT, **token_ids(tokenizer), "head_dim": 32, "num_hidden_layers": 3, "rope_parameters": rope}
    config = Qwen3VLConfig(vision_config=tower, text_config=text, **_ids(tokenizer))
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(**_STEPS),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**_STEPS),
    )
    return Twin(Qwen3VLForConditionalGeneration(config), processor, QWEN_VL.template())


def qwen3_5() -> Twin:
    """Three gated delta nets, then a layer of gated softmax attention that rotates a quarter of each head."""
    tokenizer = _tokenizer()
    tower = {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": 64,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": PATCH_SIZE,
        "num_position_embeddings": 64,
    }
    text = {
        **TEXT,
        **token_ids(tokenizer),
        "head_dim": 64,
        "num_hidden_layers": 4,
        "linear_num_key_heads": 1,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 64,  # vLLM's CPU kernel takes 64 and 128
        "linear_value_head_dim": 64,
        "rope_parameters": {**_ROPE, **_QUARTER},
    }
    config = Qwen3_5Config(vision_config=tower, text_config=text, **_ids(tokenizer))
    model = Qwen3_5ForConditionalGeneration(config)
    remember(model)
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(**_STEPS),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**_STEPS),
    )
    return Twin(model, processor, QWEN_VL.template())


def remember(model: torch.nn.Module) -> None:
    """Decays that keep a state for tens of tokens; the class draws them by chance, mostly of one or two."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("A_log"):
                parameter.copy_(torch.linspace(0.01, 0.2, len(parameter)).log())
