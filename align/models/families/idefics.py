"""Idefics2, Idefics3 and SmolVLM: images in tiles with tags around each."""

from __future__ import annotations

import re
from typing import Any, Literal

from align.models.family import Family, Modules, Processor, Serving, Sharing
from align.models.image_rules import Expansion, Size, collapsed
from align.models.pixel_budget import longest_edge_of_tiles

_MODULES = Modules(
    vision="model.vision_model.encoder",
    tower="model.vision_model",
    connector=("model.connector",),
    language="model.text_model",
    layers=(),
    cross_attention="",
)
_EQUAL = Sharing(images="equal", decoders=())


def _idefics2(processor: Any, size: Size, alone: bool) -> Expansion:
    """A fixed number of latents, five times where images are split into four."""
    fake, pieces = processor.fake_image_token, 5 if processor.image_processor.do_image_splitting else 1
    text = f"{fake}{processor.image_token}{fake}" * pieces
    return Expansion(text, (processor.image_seq_len - 1) * pieces)


def _one_fake(processor: Any, segment: str, text: str) -> str:
    """Idefics2's processor writes one tag where two images meet, and a space before a word behind it."""
    fake = processor.fake_image_token
    return re.sub(rf"{re.escape(fake)}(?=[^\s<])", f"{fake} ", text.replace(fake + fake, fake))


def _idefics3(processor: Any, size: Size, alone: bool) -> Expansion:
    """Tiles by row and column, then the whole image."""
    _, rows, columns = processor.image_processor.get_number_of_image_patches(*size, {})
    inputs = {"rows": [[rows]], "cols": [[columns]]}
    return collapsed(processor.replace_image_token(inputs, 0), processor.image_token)


def _tiled(side: Any) -> dict[str, Any]:
    """Four tiles an edge at most."""
    return {"max_image_size": {"longest_edge": side}, "size": {"longest_edge": 4 * side if side else None}}


def _idefics3_like(model_type: str, processor: str, lora: Literal["language model", "whole model"]) -> Family:
    return Family(
        model_type=model_type,
        modules=_MODULES,
        processor=Processor(
            name=processor,
            image=_idefics3,
            place="image token",
            finish=None,
            answers="told",
            prompt="one direction",
            mend=None,
            pixels=longest_edge_of_tiles,
        ),
        sharing=_EQUAL,
        serving=Serving(template="the checkpoint's", lora=lora),
        hidden_states=None,
        prompt_learning="not tried",
        image_size=_tiled,
    )


FAMILIES = (
    Family(
        model_type="idefics2",
        modules=_MODULES,
        processor=Processor(
            name="Idefics2Processor",
            image=_idefics2,
            place="image token",
            finish=_one_fake,
            answers="from the end",
            prompt="one direction",
            mend=None,
            pixels=None,
        ),
        sharing=_EQUAL,
        serving=Serving(template="the checkpoint's", lora="none"),  # vLLM has no Idefics2
        hidden_states=None,
        prompt_learning="not tried",
        image_size=None,
    ),
    _idefics3_like("idefics3", "Idefics3Processor", "whole model"),
    _idefics3_like("smolvlm", "SmolVLMProcessor", "language model"),
)
