"""PaliGemma and PaliGemma 2: the prompt is read in both directions, the answer in one."""

from __future__ import annotations

from typing import Any

from align.models.family import Family, Modules, Processor, Serving, Sharing, square
from align.models.image_rules import counted


def _bos_behind_images(processor: Any, segment: str, text: str) -> str:
    """The processor writes `<bos>` between a segment's last image and its text."""
    end = text.rfind(processor.image_token) + len(processor.image_token)
    return f"{text[:end]}{processor.tokenizer.bos_token}{text[end:]}"


def _mend(processor: Any) -> Any:
    # Imported when one is loaded: the class stands on transformers', which takes seconds.
    from align.models.paligemma_processor import mended

    return mended(processor)


FAMILIES = (
    Family(
        model_type="paligemma",
        modules=Modules(
            vision="model.vision_tower.encoder",
            tower="model.vision_tower",
            connector=("model.multi_modal_projector",),
            language="model.language_model",
            layers=(),
            cross_attention="",
        ),
        processor=Processor(
            name="PaliGemmaProcessor",
            image=counted,
            place="image token",
            finish=_bos_behind_images,
            answers="from the end",
            prompt="both directions",
            mend=_mend,
            pixels=None,
        ),
        sharing=Sharing(images="not compared", decoders=()),
        serving=Serving(template="without image tokens", lora="language model"),
        hidden_states=None,
        prompt_learning="not tried",
        image_size=square,
    ),
)
