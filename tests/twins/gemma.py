"""Gemma 3 and PaliGemma 2: SigLIP, attention in both directions among image tokens, sliding windows."""

from __future__ import annotations

from typing import Any

from transformers import (
    Gemma2Config,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    Gemma3TextConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from tests.twins import templates
from tests.twins.checkpoint import Twin
from tests.twins.llava import IMAGE_SIZE, NO_HEAD, NUM_PATCHES, TEXT, TOWER, token_ids
from tests.twins.tokenizer import build_tokenizer, token_id

_SIZE = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
_WINDOW = 16


def gemma3() -> Twin:
    """Patches pooled to four tokens; one sliding layer and one full; the window is shorter than a row."""
    named = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }
    others = ["<eos>", "<start_of_turn>"]
    tokenizer = build_tokenizer("<end_of_turn>", "<pad>", "<bos>", named, others)
    tokenizer.add_tokens(["\n" * count for count in range(1, 5)])  # one token each, as in the hub's
    text = Gemma3TextConfig(
        **TEXT,
        **token_ids(tokenizer),
        head_dim=32,
        query_pre_attn_scalar=32,
        sliding_window=_WINDOW,
        layer_types=["sliding_attention", "full_attention"],
    )
    config = Gemma3Config(
        text_config=text,
        vision_config=SiglipVisionConfig(**{**TOWER, **NO_HEAD}),
        mm_tokens_per_image=NUM_PATCHES // 4,
        boi_token_index=token_id(tokenizer, "<start_of_image>"),
        eoi_token_index=token_id(tokenizer, "<end_of_image>"),
        image_token_index=token_id(tokenizer, "<image_soft_token>"),
    )
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size=_SIZE),
        tokenizer=tokenizer,
        image_seq_length=NUM_PATCHES // 4,
    )
    return Twin(Gemma3ForConditionalGeneration(config), processor, templates.GEMMA.template())


def paligemma() -> Twin:
    """PaliGemma 2: a prefix read in both directions, Gemma 2 with soft-capped logits."""
    image_processor: Any = SiglipImageProcessorPil(size=_SIZE)
    image_processor.image_seq_length = NUM_PATCHES
    tokenizer = build_tokenizer("<eos>", "<pad>", "<bos>", {"image_token": "<image>"})
    tokenizer.add_tokens(["\n"])  # one token, as in the hub's, where vLLM looks for it
    processor = PaliGemmaProcessor(image_processor=image_processor, tokenizer=tokenizer)
    text = Gemma2Config(
        **TEXT,
        **token_ids(tokenizer),
        head_dim=32,
        query_pre_attn_scalar=32,
        sliding_window=_WINDOW,
        layer_types=["sliding_attention", "full_attention"],
    )
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(**{**TOWER, **NO_HEAD, "projection_dim": 64}),
        text_config=text,
        image_token_index=token_id(tokenizer, "<image>"),
        projection_dim=64,
        hidden_size=64,
    )
    return Twin(PaliGemmaForConditionalGeneration(config), processor, templates.PALIGEMMA.template())
