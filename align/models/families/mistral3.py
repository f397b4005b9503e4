"""Mistral Small 3.x and Ministral 3 (Pixtral's tower and processor): a line of tokens a row of patches."""

from __future__ import annotations

import math
from typing import Any

from align.models.family import Family, Modules, Processor, Serving, Sharing
from align.models.image_rules import Expansion, Size, collapsed
from align.models.pixel_budget import longest_edge_of_patches


def _image(processor: Any, size: Size, alone: bool) -> Expansion:
    """Only a longer edge is scaled down, then both are rounded up to whole tokens (`PixtralProcessor`)."""
    longest = processor.image_processor.size.longest_edge
    side = processor.patch_size * processor.spatial_merge_size
    ratio = max(max(size) / longest, 1.0)
    resized = [math.ceil(math.floor(edge / ratio) / side) * side for edge in size]
    text = processor.replace_image_token({"image_sizes": [resized]}, 0)
    return collapsed(text, processor.image_token)


FAMILIES = (
    Family(
        model_type="mistral3",
        modules=Modules(
            vision="model.vision_tower.transformer",
            tower="model.vision_tower",
            connector=("model.multi_modal_projector",),
            language="model.language_model",
            layers=(),
            cross_attention="",
        ),
        processor=Processor(
            name="PixtralProcessor",
            image=_image,
            place="image token",
            finish=None,
            answers="told",
            prompt="one direction",
            mend=None,
            pixels=longest_edge_of_patches,
        ),
        sharing=Sharing(images="equal", decoders=("ministral3",)),  # Mistral Small's decoder is Mistral's
        serving=Serving(template="the checkpoint's", lora="language model"),
        hidden_states=None,
        prompt_learning="not tried",
        image_size=None,
    ),
)
