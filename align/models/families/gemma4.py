"""Gemma 4: images of any shape in a bounded number of patches; an audio tower that no component holds."""

from __future__ import annotations

from typing import Any

from align.models.family import Family, Modules, Processor, Serving, Sharing
from align.models.image_rules import Expansion, Size, counted


def _image(processor: Any, size: Size, alone: bool) -> Expansion:
    """The counted run between two tags; the processor writes these, and its template one image token."""
    run = counted(processor, size, alone)
    return Expansion(f"{processor.boi_token}{run.text}{processor.eoi_token}", run.extra)


FAMILIES = (
    Family(
        model_type="gemma4",
        modules=Modules(
            vision="model.vision_tower.encoder",
            tower="model.vision_tower",
            connector=("model.embed_vision",),
            language="model.language_model",
            layers=(),
            cross_attention="",
        ),
        processor=Processor(
            name="Gemma4Processor",
            image=_image,
            place="image token",
            finish=None,
            answers="told",
            prompt="one direction",
            mend=None,
            pixels=None,
        ),
        sharing=Sharing(images="equal", decoders=("gemma4_text",)),
        serving=Serving(template="the checkpoint's", lora="language model"),
        hidden_states=None,
        prompt_learning="not tried",
        image_size=None,
    ),
)
