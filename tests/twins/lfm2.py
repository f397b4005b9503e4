"""LFM2-VL: SigLIP 2 at the image's own shape, pixels unshuffled by two, short convolutions and attention."""

from __future__ import annotations

from typing import Any

from transformers import (
    Lfm2Config,
    Lfm2VlConfig,
    Lfm2VlForConditionalGeneration,
    Lfm2VlImageProcessor,
    Lfm2VlProcessor,
    Siglip2VisionConfig,
)

from tests.twins import templates
from tests.twins.checkpoint import Twin
from tests.twins.llava import IMAGE_SIZE, NO_HEAD, NUM_PATCHES, PATCH_SIZE, TEXT, TOWER, token_ids
from tests.twins.tokenizer import build_tokenizer, token_id

_MOST_TILES = 6
# In the hub's files, read by vLLM alone.
_WIDTHS: dict[str, Any] = {"block_dim": TEXT["hidden_size"], "conv_dim": TEXT["hidden_size"]}


def lfm2_vl() -> Twin:
    """One to sixteen tokens whole, or two to six tiles of sixteen and a thumbnail; a tied head."""
    named = {
        "image_token": "<image>",
        "image_start_token": "<|image_start|>",
        "image_end_token": "<|image_end|>",
        "image_thumbnail": "<|img_thumbnail|>",
    }
    sides = range(1, _MOST_TILES + 1)
    tiles = [f"<|img_row_{row}_col_{column}|>" for row in sides for column in sides]
    others = ["<|endoftext|>", "<|im_start|>", *tiles]
    tokenizer = build_tokenizer("<|im_end|>", "<|pad|>", "<|startoftext|>", named, others)
    tower: dict[str, Any] = {**TOWER, **NO_HEAD, "num_patches": NUM_PATCHES}
    del tower["image_size"]
    text = Lfm2Config(
        **{**TEXT, "num_hidden_layers": 4},
        **token_ids(tokenizer),
        block_auto_adjust_ff_dim=False,
        **_WIDTHS,
        layer_types=["conv", "full_attention"] * 2,
    )
    config = Lfm2VlConfig(
        vision_config=Siglip2VisionConfig(**tower),
        text_config=text,
        image_token_id=token_id(tokenizer, "<image>"),
        projector_hidden_size=64,
    )
    processor = Lfm2VlProcessor(
        image_processor=Lfm2VlImageProcessor(
            tile_size=2 * IMAGE_SIZE,
            encoder_patch_size=PATCH_SIZE,
            min_image_tokens=1,
            max_image_tokens=NUM_PATCHES,
            max_tiles=_MOST_TILES,
        ),
        tokenizer=tokenizer,
    )
    return Twin(Lfm2VlForConditionalGeneration(config), processor, templates.shipped("lfm2_vl"))
