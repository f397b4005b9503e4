"""Gemma 4: images of any shape in a bounded number of patches; an audio tower that no component holds.

The 12B (`gemma4_unified`) has no tower: one linear layer takes patches in.
"""

from __future__ import annotations

from typing import Any

from align.models.family import Family, Modules, Processor, Serving, Sharing
from align.models.image_rules import Expansion, Size, counted


def _image(processor: Any, size: Size, alone: bool) -> Expansion:
    """The counted run between two tags; the processor writes these, and its template one image token."""
    run = counted(processor, size, alone)
    return Expansion(f"{processor.boi_token}{run.text}{processor.eoi_token}", run.extra)


def _family(model_type: str, modules: Modules, processor: str, sharing: Sharing) -> Family:
    """What both have in common."""
    return Family(
        model_type=model_type,
        modules=modules,
        processor=Processor(
            name=processor,
            image=_image,
            place="image token",
            finish=None,
            answers="told",
            prompt="one direction",
            mend=None,
            pixels=None,
        ),
        sharing=sharing,
        serving=Serving(template="the checkpoint's", lora="language model"),
        hidden_states=None,
        prompt_learning="not tried",
        image_size=None,
    )


FAMILIES = (
    _family(
        "gemma4",
        Modules(
            vision="model.vision_tower.encoder",
            tower="model.vision_tower",
            connector=("model.embed_vision",),
            language="model.language_model",
            layers=(),
            cross_attention="",
        ),
        "Gemma4Processor",
        Sharing(images="equal", decoders=("gemma4_text",)),
    ),
    _family(
        "gemma4_unified",
        Modules(
            vision="model.embed_vision.patch_dense",
            tower="model.embed_vision",
            connector=("model.embed_vision.multimodal_embedder",),
            language="model.language_model",
            layers=(),
            cross_attention="",
        ),
        "Gemma4UnifiedProcessor",
        Sharing(images="not compared", decoders=()),  # its image tokens see each other in both directions
    ),
)
