"""Small adapters and merged checkpoints for tests, made by PEFT itself on a twin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers

from align.models.families import modules_of
from align.models.family import Component
from align.models.file_form import keep_file_form
from align.models.lora_places import Blocks, as_pattern, places


def load(folder: Path) -> Any:
    """The twin's model in float32, by its own class."""
    config: Any = transformers.AutoConfig.from_pretrained(folder)
    kind: Any = getattr(transformers, config.architectures[0])
    return kind.from_pretrained(folder, dtype="float32").eval()


def lora_targets(model: Any, components: Sequence[Component], blocks: Blocks = "attention+mlp") -> str:
    """PEFT's `target_modules` for components of a built model of a known family."""
    modules = modules_of(model.config.model_type)
    chosen = [name for one in components for name in places(model, modules, one, blocks).chosen]
    return as_pattern(chosen, [name for name, _ in model.named_modules()])


def make_adapter(
    base: Path, to: Path, components: Sequence[Component] = ("language",), seed: int = 0, **config: Any
) -> Path:
    """A LoRA adapter whose B is random: it changes every answer."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = load(base)
    targets = lora_targets(model, components)
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": targets, **config}
    torch.manual_seed(seed)
    wrapped = get_peft_model(model, LoraConfig(**settings))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name or "lora_embedding_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    wrapped.save_pretrained(str(to))
    return to


def merge_by_peft(base: Path, adapter: Path, to: Path, dtype: str = "float32") -> Path:
    """PEFT's merged model, in the form of the base's files."""
    import torch
    from peft import PeftModel

    model = load(base)
    keep_file_form(model, base)
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    merged.to(getattr(torch, dtype)).save_pretrained(str(to))
    return to
