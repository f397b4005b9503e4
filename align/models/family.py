"""What is known of a family of models: one record, in which every fact is given.

No field has a default, so that a new family cannot be half known. Where nobody has looked, the record says
so in words (`not compared`, `not tried`); None means that there is nothing, never that it is not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from align.models.image_rules import ImageRule
from align.models.pixel_budget import PixelRule

Component = Literal["vision", "connector", "language", "cross_attention"]


@dataclass(frozen=True, kw_only=True)
class Modules:
    """Module-name prefixes as transformers 5.19 builds them (a test builds every family and compares).

    Attributes:
        vision: the image encoder's layers, which is what LoRA may be placed in; None in a family
            that reads text only.
        tower: the whole image encoder, connector included where the family nests it; None like `vision`.
        connector: what maps image features to the language model's width; a Q-Former belongs to it.
        language: the decoder.
        layers: those of `connector` that are one linear layer, with nothing below.
        cross_attention: a regular expression for the modules that attend from text or queries to the
            image; they are a component of their own, and belong to no other. Empty: there are none.
    """

    vision: str | None
    tower: str | None
    connector: tuple[str, ...]
    language: str
    layers: tuple[str, ...]
    cross_attention: str

    def component_of(self, module: str) -> Component | None:
        """The component a module name belongs to; None for the rest (the LM head, say)."""
        if self.cross_attention and re.match(rf"(?:{self.cross_attention})(?:\.|$)", module):
            return "cross_attention"
        if any(_inside(module, prefix) for prefix in self.connector):
            return "connector"
        if self.tower is not None and _inside(module, self.tower):
            return "vision"
        return "language" if _inside(module, self.language) else None


@dataclass(frozen=True, kw_only=True)
class Processor:
    """What a processor of transformers makes of a row. Families with the same class have the same facts.

    Attributes:
        name: of the class; it is what a trainer sees, without the model beside it.
        image: what an image becomes in the text, told from its size.
        place: where: at the template's image token, or before all text.
        finish: (processor, segment, text with its images in place) -> the text, where the processor changes
            more of a segment with images than the placeholder; None where it does not.
        answers: how the loss finds the answers: told by the processor, or counted from the end of the row,
            since it does not tell where images grew.
        prompt: whether the model reads its prompt in one direction or in both.
        mend: makes a loaded processor do what training asks of it; None where it does.
        pixels: what a recipe's pixel budget is in this processor; None where its images have one size, or
            sizes that stand in the model's config too.
    """

    name: str
    image: ImageRule
    place: Literal["image token", "before all text"]
    finish: Callable[[Any, str, str], str] | None
    answers: Literal["told", "from the end"]
    prompt: Literal["one direction", "both directions"]
    mend: Callable[[Any], Any] | None
    pixels: PixelRule | None


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """What has been compared with TRL's separate rows, in loss and gradients, and was equal.

    Attributes:
        images: rows of one image behind one prefix.
        decoders: text `model_type`s that this family brings and that hand `**kwargs` down to the attention
            interface, with masks that are causal, windowed, or (Gemma 3) bidirectional inside an image.
            Empty in a family that stands on another's decoder, or whose own has not been compared.
    """

    images: Literal["equal", "not compared", "no images"]
    decoders: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What vLLM 0.32 does with the family.

    Attributes:
        template: the chat template it is given: the checkpoint's, or that without image tokens, where vLLM
            writes those itself.
        lora: what it applies an unmerged adapter to; `whole model` where its tokens with an adapter on tower
            and connector (`--enable-tower-connector-lora`) were compared with those of the merged
            checkpoint; none where its class takes no LoRA, or it has no class.
    """

    template: Literal["the checkpoint's", "without image tokens"]
    lora: Literal["language model", "whole model", "none"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """All that is known of one `model_type`.

    Attributes:
        model_type: as in config.json.
        modules: where vision, connector and language model sit, and so where LoRA goes.
        processor: None in a family that reads text only.
        sharing: when rows may share their prefix.
        serving: what vLLM is given, and takes.
        hidden_states: gives a loaded model the `base_model` that TRL's trainers ask for; None where its
            class has one.
        prompt_learning: whether virtual tokens and prefixes beside images have been compared after reloading.
            Elsewhere positions or image masks are computed from the ids alone, without those tokens.
        image_size: (side of the vision config's image) -> arguments of the family's image processor, for
            plans without its files; None where its class's defaults and patch sizes say all, or it has none.
    """

    model_type: str
    modules: Modules
    processor: Processor | None
    sharing: Sharing
    serving: Serving
    hidden_states: Callable[[Any], None] | None
    prompt_learning: Literal["compared", "not tried"]
    image_size: Callable[[Any], dict[str, Any]] | None


def square(side: Any) -> dict[str, Any]:
    """Images are resized to a square."""
    return {"size": {"height": side, "width": side}}


def _inside(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")
