"""Qwen2-VL to Qwen3-VL and Qwen3.5: images of any size, a token for each square of patches.

Qwen3.5, 3.6 and 3.8 share the `model_type` qwen3_5: three layers of linear attention (gated delta nets), then
one of softmax attention.
"""

from __future__ import annotations

from typing import Literal

from align.models.family import Family, Modules, Processor, Serving, Sharing
from align.models.image_rules import counted
from align.models.pixel_budget import patch_squares


def _modules(*connector: str) -> Modules:
    return Modules(
        vision="model.visual.blocks",
        tower="model.visual",
        connector=tuple(f"model.visual.{name}" for name in connector),
        language="model.language_model",
        layers=(),
        cross_attention="",
    )


def _family(
    model_type: str, modules: Modules, processor: str, lora: Literal["language model", "whole model"]
) -> Family:
    """What they have in common; the planner reads patch sizes from the config."""
    return Family(
        model_type=model_type,
        modules=modules,
        processor=Processor(
            name=processor,
            image=counted,
            place="image token",
            finish=None,
            answers="told",
            prompt="one direction",
            mend=None,
            pixels=patch_squares,
        ),
        sharing=Sharing(images="equal", decoders=(f"{model_type}_text",)),
        serving=Serving(template="the checkpoint's", lora=lora),
        hidden_states=None,
        prompt_learning="not tried",
        image_size=None,
    )


FAMILIES = (
    _family("qwen2_vl", _modules("merger"), "Qwen2VLProcessor", "whole model"),
    _family("qwen2_5_vl", _modules("merger"), "Qwen2_5_VLProcessor", "whole model"),
    _family("qwen3_vl", _modules("merger", "deepstack_merger_list"), "Qwen3VLProcessor", "whole model"),
    _family("qwen3_5", _modules("merger"), "Qwen3VLProcessor", "language model"),
)
