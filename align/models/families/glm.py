"""GLM-4.1V and GLM-4.6V-Flash: images of any size, a token a square of patches, positions in three axes."""

from __future__ import annotations

from typing import Literal

from align.models.family import Family, Modules, Processor, Serving, Sharing
from align.models.image_rules import counted
from align.models.pixel_budget import patch_cubes

_MODULES = Modules(
    vision="model.visual.blocks",
    tower="model.visual",
    connector=("model.visual.merger",),
    language="model.language_model",
    layers=(),
    cross_attention="",
)


def _family(
    model_type: str,
    processor: str,
    decoders: tuple[str, ...],
    lora: Literal["language model", "none"],
) -> Family:
    """What both have in common; the planner reads patch sizes from the config."""
    return Family(
        model_type=model_type,
        modules=_MODULES,
        processor=Processor(
            name=processor,
            image=counted,
            place="image token",
            finish=None,
            answers="told",
            prompt="one direction",
            mend=None,
            pixels=patch_cubes,
        ),
        sharing=Sharing(images="equal", decoders=decoders),
        serving=Serving(template="the checkpoint's", lora=lora),
        hidden_states=None,
        prompt_learning="not tried",
        image_size=None,
    )


FAMILIES = (
    _family("glm4v", "Glm4vProcessor", ("glm4v_text",), "language model"),
    # GLM-4.1V's decoder; vLLM 0.32 has no class of this name.
    _family("glm46v", "Glm46VProcessor", (), "none"),
)
