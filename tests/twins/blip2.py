"""BLIP-2: a Q-Former whose queries cross-attend to a ViT, and OPT."""

from __future__ import annotations

from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessorPil,
    OPTConfig,
)

from tests.twins import templates
from tests.twins.checkpoint import Twin
from tests.twins.llava import IMAGE_SIZE, TOWER, token_ids
from tests.twins.tokenizer import build_tokenizer, token_id

_NUM_QUERIES = 4


def blip_2() -> Twin:
    """Four query tokens an image, before all text; no dropout, so that two forwards agree."""
    tokenizer = build_tokenizer("</s>", "<pad>", others=["<image>"])
    processor = Blip2Processor(
        image_processor=BlipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}),
        tokenizer=tokenizer,
        num_query_tokens=_NUM_QUERIES,
    )
    qformer = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "encoder_hidden_size": 32,
        "vocab_size": 64,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    text = OPTConfig(
        **token_ids(tokenizer),
        hidden_size=64,
        word_embed_proj_dim=64,
        ffn_dim=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=2048,
        dropout=0.0,
    )
    config = Blip2Config(
        vision_config=dict(TOWER),
        qformer_config=qformer,
        text_config=text,
        num_query_tokens=_NUM_QUERIES,
        image_text_hidden_size=32,
        image_token_index=token_id(tokenizer, "<image>"),
    )
    return Twin(Blip2ForConditionalGeneration(config), processor, templates.BLIP2.template())
