"""LLaVA-1.5, LLaVA-NeXT, LLaVA-OneVision and InternVL: a tower, a projector, a language model."""

from __future__ import annotations

from typing import Any

from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    SiglipVisionConfig,
)

from tests.twins import templates
from tests.twins.checkpoint import Twin
from tests.twins.tokenizer import build_tokenizer, padded_vocab_size, token_id

IMAGE_SIZE = 32
PATCH_SIZE = 8
NUM_PATCHES = (IMAGE_SIZE // PATCH_SIZE) ** 2
PINPOINTS = [[32, 64], [64, 32], [64, 64]]
TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
}
TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": IMAGE_SIZE,
    "patch_size": PATCH_SIZE,
}
# SigLIP's pooling head, which these families leave out.
NO_HEAD = {"vision_use_head": False}


def token_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The special ids and the vocabulary size that a text config records."""
    names = {"bos_token_id", "eos_token_id", "pad_token_id"}
    found = {name: getattr(tokenizer, name) for name in sorted(names)}
    return {"vocab_size": padded_vocab_size(tokenizer), **found}


def _llama_tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer("</s>", "<pad>", "<s>", {"image_token": "<image>"})


def llava() -> Twin:
    """CLIP with CLS, features of the layer before the last, Llama."""
    tokenizer = _llama_tokenizer()
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**TOWER, projection_dim=32),
        text_config=LlamaConfig(**TEXT, **token_ids(tokenizer)),
        image_token_index=token_id(tokenizer, "<image>"),
        image_seq_length=NUM_PATCHES,
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return Twin(LlavaForConditionalGeneration(config), processor, templates.VICUNA.template())


def llava_next() -> Twin:
    """LLaVA-1.6: the image whole and in tiles, with a learnt newline; Mistral."""
    tokenizer = _llama_tokenizer()
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**TOWER, projection_dim=32),
        text_config=MistralConfig(**TEXT, **token_ids(tokenizer), sliding_window=None),
        image_token_index=token_id(tokenizer, "<image>"),
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=NUM_PATCHES,
    )
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE},
            crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
            image_grid_pinpoints=PINPOINTS,
        ),
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return Twin(LlavaNextForConditionalGeneration(config), processor, templates.MISTRAL.template())


def llava_onevision() -> Twin:
    """SigLIP, tiles of any resolution, Qwen2."""
    named = {"image_token": "<image>", "video_token": "<video>"}
    tokenizer = build_tokenizer("<|im_end|>", "<|endoftext|>", None, named, ["<|im_start|>"])
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**{**TOWER, **NO_HEAD}),
        text_config=Qwen2Config(**TEXT, **token_ids(tokenizer)),
        image_token_index=token_id(tokenizer, "<image>"),
        video_token_index=token_id(tokenizer, "<video>"),
        image_grid_pinpoints=PINPOINTS,
    )
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessorPil(size=size, image_grid_pinpoints=PINPOINTS),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=NUM_PATCHES,
        vision_feature_select_strategy="full",
    )
    return Twin(LlavaOnevisionForConditionalGeneration(config), processor, templates.ONEVISION.template())


def internvl() -> Twin:
    """InternViT on up to four tiles and a thumbnail, pixel shuffle by two, Qwen2."""
    tokenizer = _internvl_tokenizer()
    return _internvl(Qwen2Config(**TEXT, **token_ids(tokenizer)), tokenizer)


def internvl3_5() -> Twin:
    """InternVL3.5: the same on Qwen3."""
    tokenizer = _internvl_tokenizer()
    return _internvl(Qwen3Config(**TEXT, **token_ids(tokenizer), head_dim=32), tokenizer)


def _internvl_tokenizer() -> PreTrainedTokenizerFast:
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    return build_tokenizer("<|im_end|>", "<|endoftext|>", None, named, ["<|im_start|>"])


def _internvl(text: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast) -> Twin:
    tower: dict[str, Any] = {**TOWER, "image_size": [IMAGE_SIZE] * 2, "patch_size": [PATCH_SIZE] * 2}
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**tower),
        text_config=text,
        image_token_id=token_id(tokenizer, "<IMG_CONTEXT>"),
        image_seq_length=NUM_PATCHES // 4,
        tie_word_embeddings=False,
    )
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil(size=size, crop_to_patches=True, max_patches=4),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=size),
        image_seq_length=NUM_PATCHES // 4,
    )
    return Twin(InternVLForConditionalGeneration(config), processor, templates.INTERNVL.template())
