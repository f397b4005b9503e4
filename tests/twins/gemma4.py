"""Gemma 4: shared keys and values, embeddings a layer, clipped projections in the tower, an audio tower."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    Gemma4AudioConfig,
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4ImageProcessorPil,
    Gemma4Processor,
    Gemma4TextConfig,
    Gemma4UnifiedAudioConfig,
    Gemma4UnifiedAudioFeatureExtractor,
    Gemma4UnifiedConfig,
    Gemma4UnifiedForConditionalGeneration,
    Gemma4UnifiedImageProcessor,
    Gemma4UnifiedProcessor,
    Gemma4UnifiedTextConfig,
    Gemma4UnifiedVideoProcessor,
    Gemma4UnifiedVisionConfig,
    Gemma4VideoProcessor,
    Gemma4VisionConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tests.twins import templates
from tests.twins.checkpoint import Twin
from tests.twins.llava import TEXT, token_ids
from tests.twins.tokenizer import build_tokenizer, token_id

_WINDOW = 16
_POOLED = 3
# The fewest that the classes take: 70 tokens an image, which are 630 patches.
_TOKENS = 70
# Of the full layers; the classes take it, and say it nowhere.
_FULL_LAYERS: dict[str, Any] = {"global_head_dim": 64, "num_global_key_value_heads": 1}
# In the hub's files, read by vLLM alone.
_VISION: dict[str, Any] = {"default_output_length": _TOKENS, "num_soft_tokens": _TOKENS}
_STEPS: dict[str, Any] = {"patch_size": 4, "max_soft_tokens": _TOKENS, "pooling_kernel_size": _POOLED}


def tokenizer() -> PreTrainedTokenizerFast:
    """The tokens that the processor looks up, and those of the turns."""
    named = {
        "image_token": "<|image|>",
        "boi_token": "<|image>",
        "eoi_token": "<image|>",
        "audio_token": "<|audio|>",
        "boa_token": "<|audio>",
        "eoa_token": "<audio|>",
    }
    others = ["<|turn>", "<|think|>", "<|channel>", "<channel|>", "<|video|>"]
    # vLLM takes the embeddings a layer of an image token from id 0, which is padding in the hub's.
    return build_tokenizer("<turn|>", "<pad>", "<bos>", named, others, lowest=["<pad>", "<eos>", "<bos>"])


def _ids(words: PreTrainedTokenizerFast) -> dict[str, Any]:
    names = ("image_token", "boi_token", "eoi_token", "audio_token", "boa_token")
    found = {f"{name}_id": token_id(words, getattr(words, name)) for name in names}
    video, end = token_id(words, "<|video|>"), token_id(words, "<audio|>")
    return {**found, "video_token_id": video, "eoa_token_index": end}


def gemma4() -> Twin:
    """E2B's shape: of four layers the last two read the keys and values of the first two."""
    words = tokenizer()
    text = Gemma4TextConfig(
        **{**TEXT, "num_hidden_layers": 4, "hidden_size": 32},
        **token_ids(words),
        head_dim=32,
        **_FULL_LAYERS,
        sliding_window=_WINDOW,
        layer_types=["sliding_attention", "full_attention"] * 2,
        num_kv_shared_layers=2,
        use_double_wide_mlp=True,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=token_ids(words)["vocab_size"],
        final_logit_softcapping=30.0,
    )
    vision = Gemma4VisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        patch_size=4,
        pooling_kernel_size=_POOLED,
        position_embedding_size=_TOKENS * _POOLED,
        use_clipped_linears=True,
        **_VISION,
    )
    audio = Gemma4AudioConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        subsampling_conv_channels=[8, 4],
        output_proj_dims=32,
    )
    config = Gemma4Config(
        text_config=text,
        vision_config=vision,
        audio_config=audio,
        **_ids(words),
    )
    processor = Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessorPil(**_STEPS),
        tokenizer=words,
        video_processor=Gemma4VideoProcessor(**_STEPS),
        image_seq_length=_TOKENS,
    )
    model = Gemma4ForConditionalGeneration(config)
    soften(model)
    return Twin(model, processor, templates.shipped("gemma4"))


def gemma4_unified() -> Twin:
    """The 12B: no tower, image tokens that see each other in both directions, full layers without values."""
    words = tokenizer()
    text = Gemma4UnifiedTextConfig(
        **{**TEXT, "hidden_size": 32},
        **token_ids(words),
        head_dim=32,
        **_FULL_LAYERS,
        sliding_window=_WINDOW,
        layer_types=["sliding_attention", "full_attention"],
        attention_k_eq_v=True,
        final_logit_softcapping=30.0,
    )
    config = Gemma4UnifiedConfig(
        text_config=text,
        vision_config=Gemma4UnifiedVisionConfig(
            patch_size=4,
            pooling_kernel_size=_POOLED,
            mm_embed_dim=32,
            output_proj_dims=32,
            mm_posemb_size=_TOKENS,
            **_VISION,
        ),
        audio_config=Gemma4UnifiedAudioConfig(audio_embed_dim=16),
        **_ids(words),
    )
    processor = Gemma4UnifiedProcessor(
        feature_extractor=Gemma4UnifiedAudioFeatureExtractor(),
        image_processor=Gemma4UnifiedImageProcessor(**_STEPS),
        tokenizer=words,
        video_processor=Gemma4UnifiedVideoProcessor(**_STEPS),
        image_seq_length=_TOKENS,
    )
    model = Gemma4UnifiedForConditionalGeneration(config)
    soften(model)
    return Twin(model, processor, templates.shipped("gemma4"))


def soften(model: PreTrainedModel) -> None:
    """Queries of norm 1, as trained weights scale them: the attention itself divides by nothing."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("q_norm.weight"):
                weight.fill_(weight.numel() ** -0.5)
