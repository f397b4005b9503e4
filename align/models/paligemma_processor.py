"""PaliGemma's processor, able to do what training asks of it; it stands on transformers' class."""

from __future__ import annotations

from typing import Any

from transformers import PaliGemmaProcessor as _Published
from transformers import ProcessorMixin


class PaliGemmaProcessor(_Published):
    """PaliGemma's, for texts that a chat template has rendered.

    The published one (transformers 5.19, models/paligemma/processing_paligemma.py) writes a line break
    behind whatever text it gets, behind an answer too, and wants an image with every text, an answer's
    too. Here the template writes the line break, and a text without images is an answer: its token types
    are 1, so that it is read causally (0 is the prompt, which the model reads in both directions).
    `<bos>` still stands between image and text. `labels`, which the published one adds, are left out.
    """

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        """The published inputs without `labels`; token types 1 where there are no images."""
        made = super().__call__(images=images, text=text, **kwargs)
        made.pop("labels", None)
        types = made.get("token_type_ids")
        if images is None and types is not None:
            made["token_type_ids"] = (
                types + 1 if hasattr(types, "shape") else [[1] * len(row) for row in types]
            )
        return made

    def prepare_inputs_layout(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        """`<bos>` behind each text's last image."""
        images, text, *_ = ProcessorMixin.prepare_inputs_layout(self, images=images, text=text, **kwargs)
        if images is not None and text is not None:
            text = [self._with_bos(sample) for sample in text]
        return images, text, None, None

    def validate_inputs(self, images: Any = None, text: Any = None, **kwargs: Any) -> None:
        """What every processor checks; images are not required."""
        ProcessorMixin.validate_inputs(self, images=images, text=text, **kwargs)

    def _with_bos(self, sample: str) -> str:
        before, image, after = sample.rpartition(self.image_token)
        return f"{before}{image}{self.tokenizer.bos_token}{after}" if image else sample


def mended(processor: Any) -> Any:
    """The same processor, mended where it is the published one.

    Under the published class's name, so that what is saved from it is loaded elsewhere as before.
    """
    if type(processor) is _Published:
        processor.__class__ = PaliGemmaProcessor
    return processor
