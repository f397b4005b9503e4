"""Tiny random models of each family, of the real classes and in the hub's file form.

`build_twin("qwen2_vl", folder)` writes one; the fixture `twins` builds each once a test session.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

Twins = Callable[[str], Path]

# model_type -> the module here whose function of that name makes it; imported when it is built.
IMAGE_TWINS = {
    "llava": "llava",
    "llava_next": "llava",
    "llava_onevision": "llava",
    "internvl": "llava",
    "qwen2_vl": "qwen",
    "qwen2_5_vl": "qwen",
    "qwen3_vl": "qwen",
    "qwen3_5": "qwen",
    "qwen3_vl_moe": "qwen_moe",
    "qwen3_5_moe": "qwen_moe",
    "idefics2": "idefics",
    "idefics3": "idefics",
    "gemma3": "gemma",
    "paligemma": "gemma",
    "blip-2": "blip2",
    "glm4v": "glm",
    "glm46v": "glm",
    "gemma4": "gemma4",
    "gemma4_unified": "gemma4",
    "mistral3": "mistral3",
    "lfm2_vl": "lfm2",
    "smolvlm": "idefics",
    "exaone4_5": "exaone4_5",
    "minicpmv4_6": "minicpm",
    "minicpmv4_7": "minicpm",
    "muse_glimmer": "muse_glimmer",
    "cohere2_vision": "cohere",
}
# Second forms of a family, another decoder say, under a name of their own.
VARIANT_TWINS = {"ministral3": "mistral3", "internvl3_5": "llava"}
# What a recipe for the family names in `lora.leave_out`, where it does not adapt it.
LEAVE_OUT = {
    "qwen3_vl_moe": ["mlp.gate", "mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
    "qwen3_5_moe": [
        "mlp.gate",
        "mlp.shared_expert_gate",
        "mlp.experts.gate_up_proj",
        "mlp.experts.down_proj",
    ],
}
TEXT_TWINS = {"llama": "text_only", "qwen2": "text_only", "gpt2": "text_only"}

# model_type -> the package that its processor asks for, an extra of pyproject.toml.
NEEDED = {"smolvlm": "num2words"}


def build_twin(model_type: str, folder: Path) -> Path:
    """Write the family's twin to `folder`, and return the folder."""
    from tests.twins.checkpoint import save

    module = import_module(f"tests.twins.{(IMAGE_TWINS | VARIANT_TWINS | TEXT_TWINS)[model_type]}")
    save(getattr(module, model_type.replace("-", "_"))(), folder)
    return folder
