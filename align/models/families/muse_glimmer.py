"""Muse Glimmer: images of any size, a token a square of patches; full layers without positions."""

from __future__ import annotations

from typing import Any

from align.models.family import Family, Modules, Processor, Serving, Sharing
from align.models.image_rules import Expansion, Size, counted


def _image(processor: Any, size: Size, alone: bool) -> Expansion:
    """The counted run between two tags, which the processor writes."""
    run = counted(processor, size, alone)
    return Expansion(f"{processor.image_start_token}{run.text}{processor.image_end_token}", run.extra)


FAMILIES = (
    Family(
        model_type="muse_glimmer",
        modules=Modules(
            vision="model.vision_tower.layers",
            tower="model.vision_tower",
            connector=("model.vision_adapter", "model.vision_projection"),
            language="model.language_model",
            layers=("model.vision_projection",),
            cross_attention="",
        ),
        processor=Processor(
            name="MuseGlimmerProcessor",
            image=_image,
            place="image token",
            finish=None,
            answers="told",
            prompt="one direction",
            mend=None,
            pixels=None,
        ),
        sharing=Sharing(images="equal", decoders=("muse_glimmer_text",)),
        serving=Serving(template="the checkpoint's", lora="language model"),
        hidden_states=None,
        prompt_learning="not tried",
        image_size=None,
    ),
)
