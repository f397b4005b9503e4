"""BLIP-2: a Q-Former's queries stand before all text."""

from __future__ import annotations

from typing import Any

from align.models.family import Family, Modules, Processor, Serving, Sharing, square
from align.models.image_rules import Expansion, Size


def _queries(processor: Any, size: Size, alone: bool) -> Expansion:
    """The query tokens before all text."""
    return Expansion("", processor.num_query_tokens)


def _offer_backbone(model: Any) -> None:
    """Give BLIP-2 the `base_model` that TRL's trainers run before their own LM head.

    `PreTrainedModel.base_model` is the attribute that `base_model_prefix` names. BLIP-2's class names one
    (`blip`) that it does not have (transformers 5.19), so the property is the whole model, which returns
    logits. Here the attribute is a function: the model's forward, with what its decoder returned and the
    head run on one token only. BLIP-2 with an encoder-decoder is left alone.
    """
    if not model.config.use_decoder_only_language_model:
        return

    def backbone(*args: Any, **kwargs: Any) -> Any:
        returned: list[Any] = []
        decoder = model.language_model.get_decoder()
        hook = decoder.register_forward_hook(lambda _module, _inputs, output: returned.append(output))
        try:
            type(model).forward(model, *args, logits_to_keep=1, **kwargs)
        finally:
            hook.remove()
        return returned[-1]

    setattr(model, model.base_model_prefix, backbone)


FAMILIES = (
    Family(
        model_type="blip-2",
        modules=Modules(
            vision="vision_model.encoder",
            tower="vision_model",
            connector=("qformer", "language_projection"),
            language="language_model",
            layers=("language_projection",),
            cross_attention=r"qformer\.encoder\.layer\.\d+\.crossattention",
        ),
        processor=Processor(
            name="Blip2Processor",
            image=_queries,
            place="before all text",
            finish=None,
            answers="told",
            prompt="one direction",
            mend=None,
            pixels=None,
        ),
        sharing=Sharing(images="not compared", decoders=()),
        serving=Serving(template="the checkpoint's", lora="language model"),
        hidden_states=_offer_backbone,
        prompt_learning="not tried",
        image_size=square,
    ),
)
