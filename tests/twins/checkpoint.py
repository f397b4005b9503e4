"""Writing a twin as the hub would hold it: key names, configs, processor, template."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Twin:
    """A model with its processor (a tokenizer for a text-only family), not yet on disk.

    Attributes:
        in_file: what `save_pretrained` wrote -> what the hub's files have; None where that is the same.
    """

    model: PreTrainedModel
    processor: Any
    template: str
    in_file: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None = None

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The processor's tokenizer, or the processor itself in a text-only family."""
        return getattr(self.processor, "tokenizer", self.processor)


def save(twin: Twin, folder: Path) -> None:
    """Write the twin to `folder`, float32, in the key form of the hub's checkpoints."""
    _draw_weights(twin.model)
    twin.processor.chat_template = twin.template
    ids = twin.tokenizer
    twin.model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=16,
        bos_token_id=ids.bos_token_id,
        eos_token_id=ids.eos_token_id,
        pad_token_id=ids.pad_token_id,
    )
    twin.model.save_pretrained(folder)
    file = folder / "model.safetensors"
    vision = getattr(twin.model.config, "vision_config", None)
    _rename_tower(file, getattr(vision, "model_type", None))
    if twin.in_file is not None:
        save_file(twin.in_file(load_file(file)), file, {"format": "pt"})
    twin.processor.save_pretrained(folder)


def _draw_weights(model: PreTrainedModel, seed: int = 0) -> None:
    """Normal weights with variance 1 / fan-in; vectors (norms, biases) keep what the class sets.

    The default 0.02 makes so small a model nearly blind: neither images nor words would change logits.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            fan_in = parameter.shape[-1] if ".experts." in name else parameter[:1].numel()
            if parameter.dim() > 1:
                parameter.normal_(0.0, fan_in**-0.5, generator=generator)


_HELD_TOWERS = frozenset({"clip_vision_model", "siglip_vision_model", "siglip2_vision_model"})


def _rename_tower(file: Path, kind: str | None) -> None:
    """CLIP and SigLIP towers: a model built from a config saves `vision_tower.encoder`, the hub has
    `vision_tower.vision_model.encoder`. transformers translates all other names itself."""
    weights = load_file(file)
    for tower in ("vision_tower.", "model.vision_tower."):
        if kind in _HELD_TOWERS and any(name.startswith(f"{tower}encoder.layers.") for name in weights):
            hub = f"{tower}vision_model."
            renamed = {
                hub + name.removeprefix(tower) if name.startswith(tower) else name: weight
                for name, weight in weights.items()
            }
            save_file(renamed, file, {"format": "pt"})
