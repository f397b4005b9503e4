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
    shared = {"head_dim": 128, "rope_parameters": rope}
    config = Qwen3VLConfig(text_config={**text, **shared}, vision_config={"patch_size": 16, **vision})
    config.tie_word_embeddings = tied
    return config


def _small_qwen3_vl(width: int, *sizes: int) -> Any:
    """2B and 4B, which share a tower."""
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "depth": 24, "out_hidden_size": width}
    return _qwen3_vl(_decoder(width, *sizes), {**vision, "deepstack_visual_indexes": [5, 11, 17]}, tied=True)


def _qwen3_vl_8b() -> Any:
    text = _decoder(4096, 12288, 36, 32, 8, 151936)
    vision = {"hidden_size": 1152, "intermediate_size": 4304, "depth": 27, "out_hidden_size": 4096}
    return _qwen3_vl(text, {**vision, "deepstack_visual_indexes": [8, 16, 24]}, tied=False)


def _decoder(width: int, inner: int, layers: int, heads: int, key_heads: int, words: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "vocab_size": words,
    }


def _qwen_text(*sizes: int) -> dict[str, Any]:
    return {**_decoder(*sizes), "rope_parameters": _MROPE}


def _qwen2_vl_2b() -> Any:
    from transformers import Qwen2VLConfig

    text = _qwen_text(1536, 8960, 28, 12, 2, 151936)
    config = Qwen2VLConfig(text_config=text, vision_config={"hidden_size": 1536})
    config.tie_word_embeddings = True
    return config


def _qwen2_5_vl_3b() -> Any:
    from transformers import Qwen2_5_VLConfig

    vision = {"hidden_size": 1280, "out_hidden_size": 2048}
    config = Qwen2_5_VLConfig(text_config=_qwen_text(2048, 11008, 36, 16, 2, 151936), vision_config=vision)
    config.tie_word_embeddings = True
    return config


def _plain_qwen(*sizes: int) -> dict[str, Any]:
    return {"model_type": "qwen2", **_decoder(*sizes)}


def _llava_onevision() -> Any:
    from transformers import LlavaOnevisionConfig

    return LlavaOnevisionConfig(text_config=_plain_qwen(3584, 18944, 28, 28, 4, 152128))


def _internvl3(text: dict[str, Any]) -> Any:
    from transformers import InternVLConfig

    config = InternVLConfig(text_config=text)
    config.tie_word_embeddings = False
    return config


def _internvl3_2b() -> Any:
    return _internvl3(_plain_qwen(1536, 8960, 28, 12, 2, 151674))


def _internvl3_8b() -> Any:
    return _internvl3(_plain_qwen(3584, 18944, 28, 28, 4, 151674))


def _siglip(side: int, **more: Any) -> dict[str, Any]:
    """SigLIP-SO400M."""
    sizes = {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
    }
    return {**sizes, "image_size": side, "patch_size": 14, **more}


def _gemma3(width: int, layers: int, heads: int, key_heads: int) -> Any:
    from transformers import Gemma3Config

    sizes = _decoder(width, 4 * width, layers, heads, key_heads, 262208)
    text = {**sizes, "head_dim": 256, "sliding_window": 1024}
    vision = _siglip(896, model_type="siglip_vision_model", vision_use_head=False)
    return Gemma3Config(text_config=text, vision_config=vision)


def _paligemma2_3b() -> Any:
    from transformers import PaliGemmaConfig

    text = {"model_type": "gemma2", **_decoder(2304, 9216, 26, 8, 4, 257216), "head_dim": 256}
    vision = _siglip(448, model_type="siglip_vision_model", vision_use_head=False, projection_dim=2304)
    return PaliGemmaConfig(text_config=text, vision_config=vision, projection_dim=2304)


def _idefics2() -> Any:
    from transformers import Idefics2Config

    text = {"model_type": "mistral", "vocab_size": 32003}
    return Idefics2Config(text_config=text, vision_config=_siglip(980))


def _idefics3(text: dict[str, Any], side: int, scale: int) -> Any:
    from transformers import Idefics3Config

    return Idefics3Config(
        text_config={"model_type": "llama", **text}, vision_config=_siglip(side), scale_factor=scale
    )


def _idefics3_8b() -> Any:
    return _idefics3(_decoder(4096, 14336, 32, 32, 8, 128259), 364, 2)


def _smolvlm_2b() -> Any:
    return _idefics3(_decoder(2048, 8192, 24, 32, 32, 49155), 384, 3)


_CONVERSION = "transformers' repository, src/transformers/models/"
# Folder in recipes/ -> (config, source).
CONFIGS: dict[str, tuple[Callable[[], Any], str]] = {
    "llava_1_5_7b": (_llava, "transformers' LlavaConfig, whose defaults are LLaVA-1.5-7B's"),
    "llava_next_7b": (_llava_next, "transformers' LlavaNextConfig and MistralConfig (Mistral-7B) defaults"),
    "qwen2_vl_7b": (_qwen2_vl_7b, "modules printed in github.com/zhenhua32/Qwen2-VL, READ.md"),
    "qwen2_5_vl_7b": (
        _qwen2_5_vl_7b,
        "modules printed in github.com/acproject/duorou, qwen2.5vl_graph.md",
    ),
    "qwen2_vl_2b": (
        _qwen2_vl_2b,
        "Qwen2's report (arXiv 2407.10671), table 1, 1.5B; transformers' Qwen2-VL tower",
    ),
    "qwen2_5_vl_3b": (
        _qwen2_5_vl_3b,
        "Qwen2.5-VL's report (arXiv 2502.13923), table 1, but not its MLP of 4,864, with which it would have "
        "2.4 billion: 11,008, as Qwen2.5-3B has",
    ),
    "qwen3_vl_2b": (
        lambda: _small_qwen3_vl(2048, 6144, 28, 16, 8, 151936),
        "github.com/pytorch/torchtitan, experiments/qwen3_vl/__init__.py",
    ),
    "qwen3_vl_4b": (
        lambda: _small_qwen3_vl(2560, 9728, 36, 32, 8, 151936),
        "Qwen3's report (arXiv 2505.09388), table 1, 4B; width and MLP of Qwen3-4B; the tower of qwen3_vl_2b",
    ),
    "qwen3_vl_8b": (_qwen3_vl_8b, "github.com/pytorch/torchtitan, experiments/qwen3_vl/__init__.py"),
    "llava_onevision_7b": (
        _llava_onevision,
        "Qwen2's report (arXiv 2407.10671), table 1, 7B; transformers' LlavaOnevisionConfig for the tower",
    ),
    "internvl3_2b": (
        _internvl3_2b,
        "InternVL3's report (arXiv 2504.10479), table 1: Qwen2.5-1.5B, InternViT-300M, transformers' default",
    ),
    "internvl3_8b": (_internvl3_8b, "the same report: Qwen2.5-7B"),
    "gemma3_4b": (lambda: _gemma3(2560, 34, 8, 4), _CONVERSION + "gemma3/convert_gemma3_weights.py"),
    "gemma3_12b": (lambda: _gemma3(3840, 48, 16, 8), _CONVERSION + "gemma3/convert_gemma3_weights.py"),
    "paligemma2_3b": (_paligemma2_3b, _CONVERSION + "paligemma/convert_paligemma2_weights_to_hf.py"),
    "idefics2_8b": (
        _idefics2,
        "Idefics2's paper (arXiv 2405.02246): Mistral-7B and SigLIP-SO400M of 980 pixels",
    ),
    "idefics3_8b": (
        _idefics3_8b,
        "Idefics3's paper (arXiv 2408.12637): Llama 3.1 8B (arXiv 2407.21783, table 3), SigLIP-SO400M of 364 "
        "pixels",
    ),
    "smolvlm_2b": (
        _smolvlm_2b,
        "SmolVLM's paper (arXiv 2504.05299): SmolLM2-1.7B (arXiv 2502.02737), SigLIP-SO400M of 384 pixels",
    ),
}
