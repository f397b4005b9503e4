"""A language model's last hidden states from a model whose class offers nothing that returns them."""

from __future__ import annotations

from typing import Any


def offer_backbone(model: Any) -> None:
    """Give BLIP-2 the `base_model` that TRL's trainers run before their own LM head.

    `PreTrainedModel.base_model` is the attribute that `base_model_prefix` names. BLIP-2's class names one
    (`blip`) that it does not have (transformers 5.19), so the property is the whole model, which returns
    logits. Here the attribute is a function: the model's forward, with what its decoder returned and the
    head run on one token only. Other models, and BLIP-2 with an encoder-decoder, are left alone.
    """
    if model.config.model_type != "blip-2" or not model.config.use_decoder_only_language_model:
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
