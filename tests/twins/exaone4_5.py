"""EXAONE 4.5: a ViT with grouped keys and window attention, and EXAONE 4."""

from __future__ import annotations

from typing import Any

from transformers import (
    Exaone4_5_Config,
    Exaone4_5_ForConditionalGeneration,
    Exaone4_5_Processor,
    Exaone4Config,
    Qwen2VLImageProcessorPil,
    Qwen2VLVideoProcessor,
)

from tests.twins import templates
from tests.twins.checkpoint import Twin
from tests.twins.llava import PATCH_SIZE, TEXT, token_ids
from tests.twins.tokenizer import build_tokenizer, token_id

# 4 to 16 tokens an image: pixels are counted in merged patches of 16 x 16.
_PIXELS = {"shortest_edge": 4 * 16 * 16, "longest_edge": 16 * 16 * 16}
_STEPS: dict[str, Any] = {"patch_size": PATCH_SIZE, "merge_size": 2, "size": _PIXELS}


def exaone4_5() -> Twin:
    """One layer of the decoder slides and has positions, the other sees all and has none."""
    named = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start_token": "<vision>",
        "vision_end_token": "</vision>",
    }
    roles = ["[|system|]", "[|user|]", "[|assistant|]"]
    tokenizer = build_tokenizer("[|endofturn|]", "[PAD]", "[BOS]", named, roles)
    tower = {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": 64,
        "intermediate_size": 64,
        "num_heads": 2,
        "num_key_value_heads": 1,
        "patch_size": PATCH_SIZE,
        "window_size": 32,
        "fullatt_block_indexes": [1],
    }
    text = Exaone4Config(
        **TEXT,
        **token_ids(tokenizer),
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
    )
    config = Exaone4_5_Config(
        vision_config=tower,
        text_config=text,
        image_token_id=token_id(tokenizer, "<|image_pad|>"),
        video_token_id=token_id(tokenizer, "<|video_pad|>"),
    )
    processor = Exaone4_5_Processor(
        image_processor=Qwen2VLImageProcessorPil(**_STEPS),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**_STEPS),
    )
    return Twin(Exaone4_5_ForConditionalGeneration(config), processor, templates.shipped("exaone4_5"))
