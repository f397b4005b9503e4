"""LFM2-VL and LFM2.5-VL: small images whole, large ones in tiles; short convolutions in the decoder."""

from __future__ import annotations

from typing import Any

from align.models.family import Family, Modules, Processor, Serving, Sharing
from align.models.image_rules import Expansion, Size, collapsed


def _image(processor: Any, size: Size, alone: bool) -> Expansion:
    """As `Lfm2VlImageProcessor.resize_and_split` and the processor's text for it."""
    images, (height, width) = processor.image_processor, size
    tokens = {
        name: getattr(images, name)
        for name in ("max_image_tokens", "encoder_patch_size", "downsample_factor")
    }
    wide, high = images.smart_resize(height, width, min_image_tokens=images.min_image_tokens, **tokens)
    columns = rows = 1
    tiles = images.do_image_splitting and (images.min_tiles, images.max_tiles) != (1, 1)
    tolerance = images.max_pixels_tolerance
    if tiles and images._is_image_too_large(height, width, max_pixels_tolerance=tolerance, **tokens):
        layout = images._get_grid_layout(height, width, images.min_tiles, images.max_tiles, images.tile_size)
        columns, rows = layout[:2]
    made = {"image_rows": [rows], "image_cols": [columns], "image_sizes": [[high, wide]]}
    text = processor.replace_image_token(made, 0, use_image_special_tokens=True)
    return collapsed(text, processor.image_token)


FAMILIES = (
    Family(
        model_type="lfm2_vl",
        modules=Modules(
            vision="model.vision_tower.encoder",
            tower="model.vision_tower",
            connector=("model.multi_modal_projector",),
            language="model.language_model",
            layers=(),
            cross_attention="",
        ),
        processor=Processor(
            name="Lfm2VlProcessor",
            image=_image,
            place="image token",
            finish=None,
            answers="told",
            prompt="one direction",
            mend=None,
            pixels=None,
        ),
        sharing=Sharing(images="not compared", decoders=()),  # a convolution reads across a branching point
        serving=Serving(template="the checkpoint's", lora="language model"),
        hidden_states=None,
        prompt_learning="not tried",
        image_size=None,
    ),
)
