"""Where LoRA goes: by regular expression on full module names, counted on the wrapped model."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from align.errors import AlignError
from align.families import FAMILIES, Blocks, Component, Family, family_of, matching
from align.modeling import first_line
from align.progress import say
from align.trainer_args import section

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from transformers import PreTrainedModel

_PLACED_BY_STAGE = {
    "peft_type": "this section is LoRA's",
    "task_type": "the stage sets it",
    "inference_mode": "the stage trains",
    "base_model_name_or_path": "set model.path",
    "revision": "set model.revision",
    "peft_version": "PEFT writes it",
    "auto_mapping": "PEFT writes it",
}
_OWN_LORA_KEYS: dict[str, tuple[Any, Any]] = {
    "components": (
        list[Component],
        Field(default=["language"], description="where LoRA goes: vision, connector, language"),
    ),
    "blocks": (Blocks, Field(default="attention+mlp", description="which layers of those components")),
}


class LoraSection(section("LoraConfig", _PLACED_BY_STAGE, _OWN_LORA_KEYS)):
    """PEFT's `LoraConfig` by its own names, plus `components` and `blocks`.

    `target_modules`, when set, is a regular expression over full module names and replaces both.
    """


@dataclass(frozen=True)
class Placement:
    """What LoRA hit.

    Attributes:
        modules: full names of the adapted modules.
        by_kind: `component: leaf name` -> number of modules.
        trainable, total: numbers of parameters.
    """

    modules: tuple[str, ...]
    by_kind: dict[str, int]
    trainable: int
    total: int

    def show(self) -> None:
        """Print the table."""
        for kind, count in sorted(self.by_kind.items()):
            say(f"  LoRA on {count:4d} x {kind}")
        counts = f"{self.trainable:,} of {self.total:,} parameters ({self.trainable / self.total:.2%})"
        say(f"  trains {counts}; everything else is frozen")


def lora_config(section: LoraSection, model: PreTrainedModel) -> LoraConfig:
    """PEFT's config with `target_modules` as a regular expression that is known to hit something.

    Raises:
        AlignError: unknown family without `target_modules`, bare names, a pattern that hits nothing,
            or arguments that PEFT refuses.
    """
    from peft import LoraConfig

    given = section.given()
    components = given.pop("components", ["language"])
    blocks = given.pop("blocks", "attention+mlp")
    target = given.pop("target_modules", None)
    if target is None:
        target = family_of(model.config.model_type).lora_targets(components, blocks)
    elif isinstance(target, list) or target == "all-linear" or re.fullmatch(r"[\w.]+", target):
        raise AlignError(
            f"lora.target_modules = {target!r}: bare names reach into the vision tower",
            fix="give one regular expression over full module names, or set lora.components and lora.blocks",
        )
    try:
        hits = matching(target, (name for name, _ in model.named_modules()))
    except re.error as error:
        raise AlignError(f"lora.target_modules is not a regular expression: {error}") from error
    if not hits:
        raise AlignError(
            f"LoRA hits no module: {target!r}",
            where=f"model_type {model.config.model_type}",
            fix=f"modules are named like {_example_modules(model)}",
        )
    try:
        return LoraConfig(target_modules=target, **given)
    except (TypeError, ValueError) as error:
        raise AlignError(f"PEFT refuses the `lora` section: {first_line(error)}") from error


def placement(peft_model: Any) -> Placement:
    """Where LoRA really is in a wrapped model, counted on the model itself.

    Raises:
        AlignError: nothing is trainable, or something outside the adapter is.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    base = peft_model.get_base_model()
    family = FAMILIES.get(base.config.model_type)
    modules = [name for name, module in base.named_modules() if isinstance(module, BaseTunerLayer)]
    kinds = Counter(f"{_component(family, name)}: {name.rsplit('.', 1)[-1]}" for name in modules)
    trainable = {name: p.numel() for name, p in base.named_parameters() if p.requires_grad}
    stray = [name for name in trainable if "lora_" not in name and "modules_to_save" not in name]
    if not trainable or stray:
        raise AlignError(f"not only the adapter trains: {stray[:3]}" if stray else "nothing is trainable")
    total = sum(_num_weights(parameter) for parameter in base.parameters())
    return Placement(tuple(modules), dict(kinds), sum(trainable.values()), total)


def _num_weights(parameter: torch.nn.Parameter) -> int:
    """Number of weights; 4-bit parameters pack two in a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(state.shape.numel())


def _component(family: Family | None, name: str) -> str:
    return (family.component_of(name) if family else None) or "model"


def _example_modules(model: PreTrainedModel) -> str:
    import torch

    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    return ", ".join(names[:1] + names[-2:-1])
