"""Command A Vision: SigLIP on tiles, pixels unshuffled by two, Cohere 2."""

from __future__ import annotations

from typing import Any

from transformers import (
    Cohere2Config,
    Cohere2VisionConfig,
    Cohere2VisionForConditionalGeneration,
    Cohere2VisionImageProcessor,
    Cohere2VisionProcessor,
    SiglipVisionConfig,
)

from tests.twins import templates
from tests.twins.checkpoint import Twin
from tests.twins.llava import IMAGE_SIZE, NO_HEAD, PATCH_SIZE, TEXT, TOWER, token_ids
from tests.twins.tokenizer import build_tokenizer, token_id


def cohere2_vision() -> Twin:
    """Four tokens a tile; attention beside the MLP, one sliding layer with positions, one full without."""
    named = {
        "image_token": "<|IMG_PATCH|>",
        "boi_token": "<|START_OF_IMG|>",
        "eoi_token": "<|END_OF_IMG|>",
        "img_line_break_token": "<|IMG_LINE_BREAK|>",
    }
    turns = ["<|START_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"]
    others = [*turns, "<|START_RESPONSE|>", "<|END_RESPONSE|>"]
    tokenizer = build_tokenizer("<|END_OF_TURN_TOKEN|>", "<PAD>", "<BOS_TOKEN>", named, others)
    text = Cohere2Config(
        **TEXT,
        **token_ids(tokenizer),
        logit_scale=1.0,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
    )
    tower: dict[str, Any] = {**TOWER, **NO_HEAD}
    config = Cohere2VisionConfig(
        vision_config=SiglipVisionConfig(**tower),
        text_config=text,
        image_token_id=token_id(tokenizer, "<|IMG_PATCH|>"),
        alignment_intermediate_size=128,
    )
    tiles: dict[str, Any] = {
        "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "patch_size": IMAGE_SIZE // PATCH_SIZE // 2,  # tokens an edge of a tile
        "max_patches": 4,
    }
    processor = Cohere2VisionProcessor(
        image_processor=Cohere2VisionImageProcessor(
            **tiles,
        ),
        tokenizer=tokenizer,
    )
    return Twin(Cohere2VisionForConditionalGeneration(config), processor, templates.shipped("cohere2_vision"))
