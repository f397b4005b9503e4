"""Muse Glimmer: a ViT with window attention, an adapter, gated attention with normed queries and keys."""

from __future__ import annotations

from typing import Any

from transformers import (
    MuseGlimmerConfig,
    MuseGlimmerForConditionalGeneration,
    MuseGlimmerImageProcessor,
    MuseGlimmerProcessor,
    MuseGlimmerTextConfig,
    MuseGlimmerVideoProcessor,
    MuseGlimmerVisionConfig,
)

from tests.twins import templates
from tests.twins.checkpoint import Twin
from tests.twins.llava import PATCH_SIZE, TEXT, token_ids
from tests.twins.tokenizer import build_tokenizer, token_id

_TOKENS = [
    *("<|patch|>", "<|image_start|>", "<|image_end|>", "<|video|>", "<|vid_frame_separator|>"),
    *("<|vid_start|>", "<|vid_end|>", "<|start|>", "<|message|>", "<|eom|>"),
]


def muse_glimmer() -> Twin:
    """One sliding layer with positions, one full without; sixteen tokens an image at most."""
    tokenizer = build_tokenizer("<|eot|>", "<|pad|>", "<|begin_of_text|>", others=_TOKENS)
    text = MuseGlimmerTextConfig(
        **TEXT,
        **token_ids(tokenizer),
        head_dim=32,
        sliding_window=16,
        qk_scale_factor=1.0,  # a random model's attention is sharp enough
        output_multiplier=0.5,
    )
    vision = MuseGlimmerVisionConfig(
        patch_size=PATCH_SIZE,
        pos_emb_height=4,
        pos_emb_width=4,
        max_position_embeddings=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        hidden_size=32,
        intermediate_size=64,
        layer_types=["window_attention", "full_attention"],
    )
    config = MuseGlimmerConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token_id(tokenizer, "<|patch|>"),
        video_token_id=token_id(tokenizer, "<|video|>"),
        out_hidden_size=128,
        projector_hidden_size=64,
    )
    steps: dict[str, Any] = {"patch_size": PATCH_SIZE, "merge_size": 2}
    most: dict[str, Any] = {**steps, "max_image_tokens": 16}
    processor = MuseGlimmerProcessor(
        image_processor=MuseGlimmerImageProcessor(**most),
        video_processor=MuseGlimmerVideoProcessor(**steps),
        tokenizer=tokenizer,
    )
    model = MuseGlimmerForConditionalGeneration(config)
    return Twin(model, processor, templates.shipped("muse_glimmer"))
