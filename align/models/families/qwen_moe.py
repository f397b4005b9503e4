"""Qwen3-VL and Qwen3.5 with experts: pictures as Qwen3-VL's, and in each layer a router that sends a token to
a few of many experts. Which ones depends on the token alone, so that rows share a prefix as without experts.

transformers keeps a layer's experts in two parameters of three dimensions, `mlp.experts.gate_up_proj` and
`mlp.experts.down_proj`, which no LoRA on modules reaches: `lora.leave_out` or `lora.target_parameters` names
them. Qwen3.5, 3.6 and 3.8 share the `model_type` qwen3_5_moe, with linear attention in three of four layers.
"""

from __future__ import annotations

from align.models.family import Family, Modules, Processor, Serving, Sharing
from align.models.image_rules import counted
from align.models.pixel_budget import patch_squares


def _family(model_type: str, connector: tuple[str, ...]) -> Family:
    return Family(
        model_type=model_type,
        modules=Modules(
            vision="model.visual.blocks",
            tower="model.visual",
            connector=tuple(f"model.visual.{name}" for name in connector),
            language="model.language_model",
            layers=(),
            cross_attention="",
        ),
        processor=Processor(
            name="Qwen3VLProcessor",
            image=counted,
            place="image token",
            finish=None,
            answers="told",
            prompt="one direction",
            mend=None,
            pixels=patch_squares,
        ),
        sharing=Sharing(images="equal", decoders=(f"{model_type}_text",)),
        serving=Serving(template="the checkpoint's", lora="language model"),
        hidden_states=None,
        prompt_learning="not tried",
        image_size=None,
    )


FAMILIES = (
    _family("qwen3_vl_moe", ("merger", "deepstack_merger_list")),
    _family("qwen3_5_moe", ("merger",)),
)
