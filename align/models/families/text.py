"""Llama, Mistral, Qwen2, Qwen3, the text part of Qwen3.5 and GPT-2: language models that read text only."""

from __future__ import annotations

from typing import Literal

from align.models.family import Family, Modules, Serving, Sharing


def _family(
    model_type: str, language: str, decoders: tuple[str, ...], lora: Literal["language model", "none"]
) -> Family:
    return Family(
        model_type=model_type,
        modules=Modules(
            vision=None, tower=None, connector=(), language=language, layers=(), cross_attention=""
        ),
        processor=None,
        sharing=Sharing(images="no images", decoders=decoders),
        serving=Serving(template="the checkpoint's", lora=lora),
        hidden_states=None,
        prompt_learning="not tried",
        image_size=None,
    )


FAMILIES = (
    _family("llama", "model", ("llama",), "language model"),
    _family("mistral", "model", ("mistral",), "language model"),
    _family("qwen2", "model", ("qwen2",), "language model"),
    _family("qwen3", "model", ("qwen3",), "language model"),
    _family("qwen3_5_text", "model", (), "language model"),  # the decoder of qwen3_5
    _family("gpt2", "transformer", (), "none"),
)
