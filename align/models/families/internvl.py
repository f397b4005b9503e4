"""InternVL in transformers' form: tiles and a thumbnail between two tags."""

from __future__ import annotations

from typing import Any

from align.models.family import Family, Modules, Processor, Serving, Sharing, square
from align.models.image_rules import Expansion, Size
from align.models.pixel_budget import whole_tiles


def _image(processor: Any, size: Size, alone: bool) -> Expansion:
    patches = processor.image_processor.get_number_of_image_patches(*size, {})
    text = processor.start_image_token + processor.image_token + processor.end_image_token
    return Expansion(text, processor.image_seq_length * patches - 1)


def _tiled(side: Any) -> dict[str, Any]:
    return {**square(side), "crop_to_patches": True}


FAMILIES = (
    Family(
        model_type="internvl",
        modules=Modules(
            vision="model.vision_tower.encoder",
            tower="model.vision_tower",
            connector=("model.multi_modal_projector",),
            language="model.language_model",
            layers=(),
            cross_attention="",
        ),
        processor=Processor(
            name="InternVLProcessor",
            image=_image,
            place="image token",
            finish=None,
            answers="told",
            prompt="one direction",
            mend=None,
            pixels=whole_tiles,
        ),
        sharing=Sharing(images="equal", decoders=()),
        serving=Serving(template="the checkpoint's", lora="language model"),
        hidden_states=None,
        prompt_learning="not tried",
        image_size=_tiled,
    ),
)
