"""Gemma 3: a fixed number of tokens an image, which see each other in both directions."""

from __future__ import annotations

from typing import Any

from align.errors import AlignError
from align.models.family import Family, Modules, Processor, Serving, Sharing, square
from align.models.image_rules import Expansion, Size, collapsed


def _image(processor: Any, size: Size, alone: bool) -> Expansion:
    if processor.image_processor.do_pan_and_scan:
        raise AlignError(
            "Gemma 3's pan and scan is not counted", fix="set do_pan_and_scan: false in the processor's files"
        )
    return collapsed(processor.full_image_sequence, processor.tokenizer.image_token)


FAMILIES = (
    Family(
        model_type="gemma3",
        modules=Modules(
            vision="model.vision_tower.encoder",
            tower="model.vision_tower",
            connector=("model.multi_modal_projector",),
            language="model.language_model",
            layers=(),
            cross_attention="",
        ),
        processor=Processor(
            name="Gemma3Processor",
            image=_image,
            place="image token",
            finish=None,
            answers="told",
            prompt="one direction",
            mend=None,
            pixels=None,
        ),
        sharing=Sharing(images="equal", decoders=("gemma3_text",)),
        serving=Serving(template="the checkpoint's", lora="language model"),
        hidden_states=None,
        prompt_learning="not tried",
        image_size=square,
    ),
)
