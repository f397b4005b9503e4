"""Decoders without images: Llama, Qwen2 with a sliding window in its upper layer, GPT-2."""

from __future__ import annotations

from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tests.twins import templates
from tests.twins.checkpoint import Twin
from tests.twins.llava import TEXT, token_ids
from tests.twins.tokenizer import build_tokenizer


def llama() -> Twin:
    """Llama with grouped keys and values."""
    tokenizer = build_tokenizer("</s>", "<pad>", "<s>")
    config = LlamaConfig(**TEXT, **token_ids(tokenizer))
    return Twin(LlamaForCausalLM(config), tokenizer, templates.VICUNA.template())


def qwen2() -> Twin:
    """Qwen2; the window is shorter than any conversation, so that it counts."""
    tokenizer = build_tokenizer("<|im_end|>", "<|endoftext|>", None, others=["<|im_start|>"])
    config = Qwen2Config(
        **TEXT, **token_ids(tokenizer), use_sliding_window=True, sliding_window=8, max_window_layers=1
    )
    return Twin(Qwen2ForCausalLM(config), tokenizer, templates.CHATML.template())


def gpt2() -> Twin:
    """GPT-2: learnt positions, one fused projection for queries, keys and values."""
    tokenizer = build_tokenizer("<|endoftext|>", "<pad>")
    config = GPT2Config(
        **token_ids(tokenizer),
        n_embd=64,
        n_layer=2,
        n_head=2,
        n_positions=512,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    return Twin(GPT2LMHeadModel(config), tokenizer, templates.GPT2.template())
