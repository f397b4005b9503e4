"""Idefics2, Idefics3 and SmolVLM2: a tower of its own, a perceiver or pixel shuffle as connector."""

from __future__ import annotations

from typing import Any

from transformers import (
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2ImageProcessorPil,
    Idefics2Processor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from tests.twins import templates
from tests.twins.checkpoint import Twin
from tests.twins.llava import IMAGE_SIZE, NUM_PATCHES, TEXT, TOWER, token_ids
from tests.twins.tokenizer import build_tokenizer, token_id

_TOKENS = ["<|im_start|>", "<fake_token_around_image>", "<image>", "<end_of_utterance>"]
_NUM_LATENTS = 4


def idefics2() -> Twin:
    """SigLIP at the image's own shape, a perceiver of four latents, Mistral."""
    tokenizer = build_tokenizer("<end_of_utterance>", "<pad>", "<s>", others=["</s>", *_TOKENS])
    processor = Idefics2Processor(
        image_processor=Idefics2ImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE // 2, "longest_edge": IMAGE_SIZE}, do_image_splitting=False
        ),
        tokenizer=tokenizer,
        image_seq_len=_NUM_LATENTS,
    )
    config = Idefics2Config(
        vision_config=dict(TOWER),
        perceiver_config={
            "hidden_size": 64,
            "resampler_n_latents": _NUM_LATENTS,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "num_key_value_heads": 1,
        },
        text_config=MistralConfig(**TEXT, **token_ids(tokenizer), sliding_window=None),
        image_token_id=token_id(tokenizer, "<image>"),
    )
    return Twin(Idefics2ForConditionalGeneration(config), processor, templates.IDEFICS.template())


def _tiled_tokenizer() -> PreTrainedTokenizerFast:
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    others = ["<|end_of_text|>", *_TOKENS, "<global-img>", "<video>", *tiles]
    return build_tokenizer("<end_of_utterance>", "<pad>", "<|begin_of_text|>", others=others)


def _tiled_settings(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vision_config": dict(TOWER),
        "text_config": LlamaConfig(**TEXT, **token_ids(tokenizer)),
        "image_token_id": token_id(tokenizer, "<image>"),
        "scale_factor": 2,
        "pad_token_id": token_id(tokenizer, "<pad>"),
    }


_TILES: dict[str, Any] = {
    "size": {"longest_edge": 2 * IMAGE_SIZE},
    "max_image_size": {"longest_edge": IMAGE_SIZE},
}


def idefics3() -> Twin:
    """Tiles and the whole image, pixel shuffle by two, Llama."""
    tokenizer = _tiled_tokenizer()
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil(**_TILES),
        tokenizer=tokenizer,
        image_seq_len=NUM_PATCHES // 4,
    )
    config = Idefics3Config(**_tiled_settings(tokenizer))
    return Twin(Idefics3ForConditionalGeneration(config), processor, templates.IDEFICS3.template())


def smolvlm() -> Twin:
    """SmolVLM2: the same shape under classes of its own; its template begins with `<|im_start|>`."""
    tokenizer = _tiled_tokenizer()
    processor = SmolVLMProcessor(
        image_processor=SmolVLMImageProcessorPil(**_TILES),
        tokenizer=tokenizer,
        video_processor=SmolVLMVideoProcessor(**_TILES),
        image_seq_len=NUM_PATCHES // 4,
    )
    config = SmolVLMConfig(**_tiled_settings(tokenizer))
    return Twin(SmolVLMForConditionalGeneration(config), processor, templates.SMOLVLM.template())
