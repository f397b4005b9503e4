"""EXAONE 4.5: images of any size, a token a square of patches; a decoder with sliding windows."""

from __future__ import annotations

from align.models.family import Family, Modules, Processor, Serving, Sharing
from align.models.image_rules import counted
from align.models.pixel_budget import patch_squares

FAMILIES = (
    Family(
        model_type="exaone4_5",
        modules=Modules(
            vision="model.visual.blocks",
            tower="model.visual",
            connector=("model.visual.merger",),
            language="model.language_model",
            layers=(),
            cross_attention="",
        ),
        processor=Processor(
            name="Exaone4_5_Processor",
            image=counted,
            place="image token",
            finish=None,
            answers="told",
            prompt="one direction",
            mend=None,
            pixels=patch_squares,
        ),
        sharing=Sharing(images="equal", decoders=("exaone4",)),
        serving=Serving(template="the checkpoint's", lora="language model"),
        hidden_states=None,
        prompt_learning="not tried",
        image_size=None,
    ),
)
