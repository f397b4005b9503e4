"""Cohere's Command A Vision: tiles and a thumbnail, a line break behind each."""

from __future__ import annotations

from typing import Any

from align.models.family import Family, Modules, Processor, Serving, Sharing, square
from align.models.image_rules import Expansion, Size, collapsed
from align.models.pixel_budget import whole_tiles


def _image(processor: Any, size: Size, alone: bool) -> Expansion:
    tiles = processor.image_processor.get_number_of_image_patches(*size, {})
    return collapsed(processor.replace_image_token({"num_patches": [tiles]}, 0), processor.image_token)


FAMILIES = (
    Family(
        model_type="cohere2_vision",
        modules=Modules(
            vision="model.vision_tower.encoder",
            tower="model.vision_tower",
            connector=("model.multi_modal_projector",),
            language="model.language_model",
            layers=(),
            cross_attention="",
        ),
        processor=Processor(
            name="Cohere2VisionProcessor",
            image=_image,
            place="image token",
            finish=None,
            answers="told",
            prompt="one direction",
            mend=None,
            pixels=whole_tiles,
        ),
        sharing=Sharing(images="equal", decoders=("cohere2",)),
        serving=Serving(template="the checkpoint's", lora="none"),
        hidden_states=None,
        prompt_learning="not tried",
        image_size=square,
    ),
)
