"""Mistral Small 3.x and Ministral 3: Pixtral's tower, patches merged by two, two decoders."""

from __future__ import annotations

from typing import Any

from transformers import (
    Ministral3Config,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralImageProcessorPil,
    PixtralProcessor,
    PixtralVisionConfig,
    PreTrainedTokenizerFast,
)

from tests.twins import templates
from tests.twins.checkpoint import Twin
from tests.twins.llava import IMAGE_SIZE, PATCH_SIZE, TEXT, TOWER, token_ids
from tests.twins.tokenizer import build_tokenizer, token_id

_TOKENS = ["[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]


def _twin(text: Any, tokenizer: PreTrainedTokenizerFast) -> Twin:
    config = Mistral3Config(
        vision_config=PixtralVisionConfig(**TOWER),
        text_config=text,
        image_token_index=token_id(tokenizer, "[IMG]"),
        tie_word_embeddings=text.tie_word_embeddings,
    )
    processor = PixtralProcessor(
        image_processor=PixtralImageProcessorPil(
            size={"longest_edge": 2 * IMAGE_SIZE}, patch_size={"height": PATCH_SIZE, "width": PATCH_SIZE}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        spatial_merge_size=2,
    )
    return Twin(Mistral3ForConditionalGeneration(config), processor, templates.shipped("mistral3"))


def _tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer("</s>", "<pad>", "<s>", others=_TOKENS)


def mistral3() -> Twin:
    """Mistral Small 3.1's shape: Mistral, with a head of its own."""
    tokenizer = _tokenizer()
    text = MistralConfig(**TEXT, **token_ids(tokenizer), head_dim=32, sliding_window=None)
    return _twin(text, tokenizer)


def ministral3() -> Twin:
    """Ministral 3's decoder: yarn, queries scaled by their place from the 32nd token on, a tied head."""
    tokenizer = _tokenizer()
    rope = {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 64.0,
        "original_max_position_embeddings": 32,
        "max_position_embeddings": TEXT["max_position_embeddings"],
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale_all_dim": 1.0,
        "mscale": 1.0,
        "llama_4_scaling_beta": 0.1,
    }
    text = Ministral3Config(
        **TEXT, **token_ids(tokenizer), head_dim=32, rope_parameters=rope, tie_word_embeddings=True
    )
    return _twin(text, tokenizer)
