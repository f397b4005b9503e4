"""MiniCPM-V 4.6 and 4.7: an image whole and in slices; a merger inside the tower; Qwen3.5's decoder."""

from __future__ import annotations

import re
from typing import Any

from align.models.family import Family, Modules, Processor, Serving, Sharing
from align.models.image_rules import Expansion, Size, collapsed


def _image(processor: Any, size: Size, alone: bool) -> Expansion:
    """As `_preprocess` of the image processor sizes an image and its slices."""
    import numpy as np

    images = processor.image_processor
    grid = None
    if images.slice_mode:
        grid = images.get_sliced_grid(size, images.max_slice_nums, images.scale_resolution)
    settings = {"scale_resolution": images.scale_resolution, "patch_size": images.patch_size}
    sides = [images.find_best_resize(size, allow_upscale=grid is None, **settings)]
    if grid is not None:
        height, width = images.get_refine_size(size, grid, allow_upscale=True, **settings)
        sides += [(height // grid[0], width // grid[1])] * (grid[0] * grid[1])
    made = {
        "grids": [grid or [0, 0]],
        "num_patches_per_image": [len(sides)],
        "target_sizes": np.array(sides) // images.patch_size,
    }
    divisor = processor.image_token_divisor
    text = processor.replace_image_token(made, 0, image_token_divisor=divisor)
    if processor.default_use_image_id:
        text = f"{processor.image_id_start_token}0{processor.image_id_end_token}{text}"
    return collapsed(text, processor.image_token)


def _numbered(processor: Any, segment: str, text: str) -> str:
    """The processor numbers a row's images from 0."""
    opening, closing = processor.image_id_start_token, processor.image_id_end_token
    first, *rest = re.split(rf"{re.escape(opening)}0{re.escape(closing)}", text)
    return first + "".join(f"{opening}{number}{closing}{part}" for number, part in enumerate(rest))


def _family(model_type: str, processor: str, sharing: Sharing) -> Family:
    """What both have in common."""
    return Family(
        model_type=model_type,
        modules=Modules(
            vision="model.vision_tower",  # a merger stands between its layers
            tower="model.vision_tower",
            connector=("model.merger",),
            language="model.language_model",
            layers=(),
            cross_attention="",
        ),
        processor=Processor(
            name=processor,
            image=_image,
            place="image token",
            finish=_numbered,
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
    _family("minicpmv4_6", "MiniCPMV4_6Processor", Sharing(images="equal", decoders=())),
    # 4.7 has positions of its own for tags and slices, which shared rows do not know.
    _family("minicpmv4_7", "MiniCPMV4_7Processor", Sharing(images="not compared", decoders=())),
)
