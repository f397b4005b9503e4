"""MiniCPM-V 4.6 and 4.7: a ViT with a window merger between its layers, and Qwen3.5's decoder."""

from __future__ import annotations

from typing import Any

from transformers import (
    MiniCPMV4_6Config,
    MiniCPMV4_6ForConditionalGeneration,
    MiniCPMV4_6ImageProcessorPil,
    MiniCPMV4_6Processor,
    MiniCPMV4_6VideoProcessor,
    MiniCPMV4_7Config,
    MiniCPMV4_7ForConditionalGeneration,
    MiniCPMV4_7Processor,
    PreTrainedTokenizerFast,
    Qwen3_5TextConfig,
)

from tests.twins import templates
from tests.twins.checkpoint import Twin
from tests.twins.llava import IMAGE_SIZE, PATCH_SIZE, TEXT, TOWER, token_ids
from tests.twins.qwen import remember
from tests.twins.tokenizer import build_tokenizer, token_id

_STEPS: dict[str, Any] = {"patch_size": PATCH_SIZE, "scale_resolution": 2 * IMAGE_SIZE, "max_slice_nums": 4}


_NAMED = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}


def _tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer("<|im_end|>", "<|endoftext|>", None, _NAMED, ["<|im_start|>"])


def _settings(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    text = Qwen3_5TextConfig(
        **{**TEXT, "num_hidden_layers": 4},
        **token_ids(tokenizer),
        head_dim=64,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=32,
        linear_value_head_dim=32,
    )
    return {
        "vision_config": {**TOWER},
        "text_config": text,
        "insert_layer_id": 0,
        "image_size": IMAGE_SIZE,
        "image_token_id": token_id(tokenizer, "<|image_pad|>"),
        "video_token_id": token_id(tokenizer, "<|video_pad|>"),
    }


def _parts(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "image_processor": MiniCPMV4_6ImageProcessorPil(**_STEPS),
        "video_processor": MiniCPMV4_6VideoProcessor(**_STEPS),
        "tokenizer": tokenizer,
    }


def minicpmv4_6() -> Twin:
    """A sixteenth of the patches as tokens: some four whole, some four for each of two to four slices."""
    tokenizer = _tokenizer()
    model = MiniCPMV4_6ForConditionalGeneration(MiniCPMV4_6Config(**_settings(tokenizer)))
    remember(model)
    processor = MiniCPMV4_6Processor(**_parts(tokenizer))
    return Twin(model, processor, templates.chatml("<|image_pad|>").template())


def minicpmv4_7() -> Twin:
    """The same with positions in three axes over the whole picture, tags and line breaks at its edges."""
    tokenizer = _tokenizer()
    tags: dict[str, Any] = {
        f"{name}_id": token_id(tokenizer, _NAMED[f"{name}_token"])
        for name in ("image_start", "image_end", "slice_start", "slice_end")
    }
    newline = tokenizer.encode("\n", add_special_tokens=False)
    assert len(newline) == 1
    config = MiniCPMV4_7Config(**_settings(tokenizer), **tags, newline_id=newline[0])
    model = MiniCPMV4_7ForConditionalGeneration(config)
    remember(model)
    processor = MiniCPMV4_7Processor(**_parts(tokenizer))
    return Twin(model, processor, templates.chatml("<|image_pad|>").template())
