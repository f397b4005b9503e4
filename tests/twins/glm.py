"""GLM-4.1V and GLM-4.6V-Flash: a ViT, a strided convolution, a merger, a decoder with a fused MLP matrix."""

from __future__ import annotations

from typing import Any

from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessorPil,
    Glm4vProcessor,
    Glm4vVideoProcessor,
    Glm46VConfig,
    Glm46VForConditionalGeneration,
    Glm46VImageProcessorPil,
    Glm46VProcessor,
    Glm46VVideoProcessor,
    PreTrainedTokenizerFast,
)

from tests.twins import templates
from tests.twins.checkpoint import Twin
from tests.twins.llava import IMAGE_SIZE, PATCH_SIZE, TEXT, token_ids
from tests.twins.tokenizer import build_tokenizer, token_id

# 4 to 16 tokens an image, in merged patches of 16 x 16; pixels count twice, since an image is two frames.
_PIXELS = {"shortest_edge": 2 * 4 * 16 * 16, "longest_edge": 2 * 16 * 16 * 16}
_STEPS: dict[str, Any] = {"patch_size": PATCH_SIZE, "merge_size": 2, "size": _PIXELS}
_TOWER: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "num_heads": 2,
    "out_hidden_size": 64,
    "intermediate_size": 96,
    "image_size": IMAGE_SIZE,
    "patch_size": PATCH_SIZE,
}
_ROPE = {
    "rope_type": "default",
    "rope_theta": 1e4,
    "partial_rotary_factor": 0.5,
    "mrope_section": [2, 3, 3],
}


def _tokenizer() -> PreTrainedTokenizerFast:
    """`<|user|>` ends an answer, as the published generation config has it beside `<|endoftext|>`."""
    named = {"image_token": "<|image|>", "video_token": "<|video|>"}
    thoughts = ["<think>", "</think>", "/nothink"]
    roles = [*thoughts, "<|system|>", "<|assistant|>", "<|observation|>", "[gMASK]", "<sop>"]
    around = [f"<|{side}_of_{kind}|>" for kind in ("image", "video") for side in ("begin", "end")]
    return build_tokenizer("<|user|>", "<|endoftext|>", None, named, [*roles, *around])


def _settings(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    ids = {
        f"{kind}_{name}_id": token_id(tokenizer, token.format(kind))
        for kind in ("image", "video")
        for name, token in (
            ("token", "<|{}|>"),
            ("start_token", "<|begin_of_{}|>"),
            ("end_token", "<|end_of_{}|>"),
        )
    }
    text = {**TEXT, **token_ids(tokenizer), "rope_parameters": _ROPE}
    return {"vision_config": dict(_TOWER), "text_config": text, **ids}


def glm4v() -> Twin:
    """GLM-4.1V-9B-Thinking's shape: half of each head rotated, norms before and after each block."""
    tokenizer = _tokenizer()
    processor = Glm4vProcessor(
        image_processor=Glm4vImageProcessorPil(**_STEPS),
        tokenizer=tokenizer,
        video_processor=Glm4vVideoProcessor(**_STEPS),
    )
    model = Glm4vForConditionalGeneration(Glm4vConfig(**_settings(tokenizer)))
    return Twin(model, processor, templates.shipped("glm4v"))


def glm46v() -> Twin:
    """GLM-4.6V-Flash: the same modules under classes of its own; thoughts are off unless asked for."""
    tokenizer = _tokenizer()
    processor = Glm46VProcessor(
        image_processor=Glm46VImageProcessorPil(**_STEPS),
        tokenizer=tokenizer,
        video_processor=Glm46VVideoProcessor(**_STEPS),
    )
    model = Glm46VForConditionalGeneration(Glm46VConfig(**_settings(tokenizer)))
    return Twin(model, processor, templates.shipped("glm46v"))
