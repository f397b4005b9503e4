"""Configs of published checkpoints whose sizes could be sourced without the hub, for predictions.

Only what decides memory is right: widths, depths, heads, vocabularies, ties. Each entry names its source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_MROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}


def _llava() -> Any:
    from transformers import LlavaConfig

    return LlavaConfig()


def _llava_next() -> Any:
    from transformers import LlavaNextConfig, MistralConfig

    return LlavaNextConfig(text_config=MistralConfig())


def _qwen2_vl_7b() -> Any:
    from transformers import Qwen2VLConfig

    text = _qwen_text(3584, 18944, 28, 28, 4, 152064)
    return Qwen2VLConfig(text_config=text, vision_config={"hidden_size": 3584})


def _qwen2_5_vl_7b() -> Any:
    from transformers import Qwen2_5_VLConfig

    vision = {"hidden_size": 1280, "out_hidden_size": 3584}
    return Qwen2_5_VLConfig(text_config=_qwen_text(3584, 18944, 28, 28, 4, 152064), vision_config=vision)


def _qwen3_vl(text: dict[str, Any], vision: dict[str, Any], tied: bool) -> Any:
    from transformers import Qwen3VLConfig

    rope = {
        "rope_type": "default",
        "rope_theta": 5e6,
        "mrope_section": [24, 20, 20],
        "mrope_interleaved": True,
    }
    shared = {"head_dim": 128, "num_key_value_heads": 8, "vocab_size": 151936, "rope_parameters": rope}
    config = Qwen3VLConfig(text_config={**shared, **text}, vision_config={"patch_size": 16, **vision})
    config.tie_word_embeddings = tied
    return config


def _qwen3_vl_2b() -> Any:
    text = {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
    }
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "depth": 24, "out_hidden_size": 2048}
    return _qwen3_vl(text, {**vision, "deepstack_visual_indexes": [5, 11, 17]}, tied=True)


def _qwen3_vl_8b() -> Any:
    text = {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
    }
    vision = {"hidden_size": 1152, "intermediate_size": 4304, "depth": 27, "out_hidden_size": 4096}
    return _qwen3_vl(text, {**vision, "deepstack_visual_indexes": [8, 16, 24]}, tied=False)


def _qwen_text(width: int, inner: int, layers: int, heads: int, key_heads: int, words: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "vocab_size": words,
        "rope_parameters": _MROPE,
    }


# Folder in recipes/ -> (config, source).
CONFIGS: dict[str, tuple[Callable[[], Any], str]] = {
    "llava_1_5_7b": (_llava, "transformers' LlavaConfig, whose defaults are LLaVA-1.5-7B's"),
    "llava_next_7b": (_llava_next, "transformers' LlavaNextConfig and MistralConfig (Mistral-7B) defaults"),
    "qwen2_vl_7b": (_qwen2_vl_7b, "modules printed in github.com/zhenhua32/Qwen2-VL, READ.md"),
    "qwen2_5_vl_7b": (
        _qwen2_5_vl_7b,
        "modules printed in github.com/acproject/duorou, qwen2.5vl_graph.md",
    ),
    "qwen3_vl_2b": (_qwen3_vl_2b, "github.com/pytorch/torchtitan, experiments/qwen3_vl/__init__.py"),
    "qwen3_vl_8b": (_qwen3_vl_8b, "github.com/pytorch/torchtitan, experiments/qwen3_vl/__init__.py"),
}
