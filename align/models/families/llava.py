"""LLaVA-1.5, LLaVA-NeXT, LLaVA-OneVision and VipLLaVA: a tower, a projector, a language model."""

from __future__ import annotations

from typing import Any

from align.models.family import Family, Modules, Processor, Serving, Sharing, square
from align.models.image_rules import Expansion, ImageRule, Size, counted

_MODULES = Modules(
    vision="model.vision_tower.encoder",
    tower="model.vision_tower",
    connector=("model.multi_modal_projector",),
    language="model.language_model",
    layers=(),
    cross_attention="",
)
_SERVED = Serving(template="the checkpoint's", lora="language model")
# vLLM's LLaVA-OneVision takes no LoRA, and it has no VipLLaVA.
_SERVED_MERGED = Serving(template="the checkpoint's", lora="none")
_EQUAL = Sharing(images="equal", decoders=())


def _onevision(processor: Any, size: Size, alone: bool) -> Expansion:
    """Tiles for an only image; several images get one tile and a newline each."""
    if alone:
        return counted(processor, size, alone)
    tokens = processor.num_image_tokens + 1 - (processor.vision_feature_select_strategy == "default")
    return Expansion(processor.image_token, tokens - 1)


def _processor(name: str, image: ImageRule) -> Processor:
    return Processor(
        name=name,
        image=image,
        place="image token",
        finish=None,
        answers="told",
        prompt="one direction",
        mend=None,
        pixels=None,
    )


def _cropped(side: Any) -> dict[str, Any]:
    """The shorter edge is resized, the middle cut out."""
    return {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}


FAMILIES = (
    Family(
        model_type="llava",
        modules=_MODULES,
        processor=_processor("LlavaProcessor", counted),
        sharing=_EQUAL,
        serving=_SERVED,
        hidden_states=None,
        prompt_learning="compared",
        image_size=_cropped,
    ),
    Family(
        model_type="llava_next",
        modules=_MODULES,
        processor=_processor("LlavaNextProcessor", counted),
        sharing=_EQUAL,
        serving=_SERVED,
        hidden_states=None,
        prompt_learning="not tried",
        image_size=_cropped,
    ),
    Family(
        model_type="llava_onevision",
        modules=_MODULES,
        processor=_processor("LlavaOnevisionProcessor", _onevision),
        sharing=_EQUAL,
        serving=_SERVED_MERGED,
        hidden_states=None,
        prompt_learning="not tried",
        image_size=square,
    ),
    Family(
        model_type="vipllava",
        modules=_MODULES,
        processor=_processor("LlavaProcessor", counted),
        sharing=Sharing(images="not compared", decoders=()),
        serving=_SERVED_MERGED,
        hidden_states=None,
        prompt_learning="not tried",
        image_size=None,
    ),
)
