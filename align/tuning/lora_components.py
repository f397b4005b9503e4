"""What a recipe asks LoRA to do in each component of a model, resolved to module names.

Either the short form, `components: [language, vision]` with `blocks`, where all components share rank and
rate, or one section a component (MM-LoRA: Dong et al., 2024, gives vision and language ranks of their own):

    components:
      language: {r: 16, lora_alpha: 32, target: attention+mlp}
      vision: {r: 32, lora_alpha: 64, learning_rate: 5e-5}
      connector: {train: full, learning_rate: 1e-3}
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from align.config.recipe import Strict
from align.errors import AlignError
from align.models.families import known_modules
from align.models.family import Component, Modules
from align.models.lora_places import (
    Blocks,
    Places,
    as_pattern,
    by_leaf,
    leaf_name,
    matching,
    of_linear_layer,
    places,
)
from align.models.proposal import checked_modules

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LORA_ONLY = ("r", "lora_alpha", "lora_dropout", "target", "target_modules")


class ComponentSection(Strict):
    """How one component trains; what is not set is the `lora` section's own."""

    model_config = ConfigDict(strict=True)

    train: Literal["lora", "full"] = Field(
        default="lora", description="lora; or full: every weight, saved whole (PEFT's modules_to_save)"
    )
    r: int | None = Field(default=None, ge=1, description="rank")
    lora_alpha: int | None = Field(default=None, ge=1, description="the update is scaled by lora_alpha / r")
    lora_dropout: float | None = Field(default=None, ge=0, lt=1, description="dropout in front of A")
    learning_rate: float | None = Field(
        default=None, gt=0, description="peak learning rate of this component; null is the trainer's"
    )
    target: Blocks | None = Field(default=None, description="which layers; attention+mlp if not set")
    target_modules: str | None = Field(
        default=None, description="instead of target: a regular expression over full module names"
    )

    @model_validator(mode="after")
    def _one_way(self) -> ComponentSection:
        set_too = [name for name in _LORA_ONLY if getattr(self, name) is not None]
        if self.train == "full" and set_too:
            raise ValueError(f"train: full has no rank and no targets: remove {', '.join(set_too)}")
        if self.target is not None and self.target_modules is not None:
            raise ValueError("give target or target_modules, not both")
        return self


def _form(value: Any) -> str:
    return "function-sections" if isinstance(value, Mapping) else "function-list"


# Tags stand in the location of an error; those that begin with `function-` are not shown.
Components = Annotated[
    Annotated[list[Component], Tag("function-list")]
    | Annotated[dict[Component, ComponentSection], Tag("function-sections")],
    Discriminator(_form),
]


@dataclass(frozen=True)
class Part:
    """One component of a model as it will train.

    Attributes:
        component: its name; `model` for modules that no family fact places.
        modules: full names: LoRA's targets, or what trains whole.
        pattern: a regular expression that matches LoRA's targets among all module names.
        is_full: every weight of `modules` trains.
        matrices: all weight matrices of the component, sorted; None where it trains whole or is not known.
        parameters: full names of parameters that LoRA adapts where no linear layer holds them: experts.
        r, lora_alpha, lora_dropout: LoRA's; None elsewhere.
        learning_rate: None is the trainer's.
    """

    component: str
    modules: tuple[str, ...]
    pattern: str = ""
    is_full: bool = False
    matrices: Places | None = None
    parameters: tuple[str, ...] = ()
    r: int | None = None
    lora_alpha: int | None = None
    lora_dropout: float | None = None
    learning_rate: float | None = None


@dataclass(frozen=True)
class Wishes:
    """What a recipe says about matrices beside the components.

    Attributes:
        leave_out: ends of names that stay frozen though their component trains: `mlp.gate`.
        target_parameters: PEFT's: ends of names of parameters that no linear layer holds.
        section: of the recipe, for messages.
    """

    leave_out: tuple[str, ...] = ()
    target_parameters: tuple[str, ...] = ()
    section: str = "lora"


def listed_parts(
    components: Sequence[Component],
    blocks: Blocks,
    defaults: Mapping[str, Any],
    model: PreTrainedModel,
    wishes: Wishes | None = None,
) -> list[Part]:
    """The short form: the same in each component.

    Args:
        defaults: `r`, `lora_alpha`, `lora_dropout`.
    """
    sections: dict[Component, ComponentSection] = {
        name: ComponentSection(target=blocks) for name in components
    }
    return section_parts(sections, defaults, model, wishes)


def section_parts(
    sections: Mapping[Component, ComponentSection],
    defaults: Mapping[str, Any],
    model: PreTrainedModel,
    wishes: Wishes | None = None,
) -> list[Part]:
    """One section a component.

    Args:
        defaults: `r`, `lora_alpha`, `lora_dropout` where a section does not set them.

    Raises:
        AlignError: a component that hits nothing, reaches out of itself, overlaps another, or has matrices
            that nobody spoke of.
    """
    wishes = wishes or Wishes()
    if not sections:
        what = f"{wishes.section}.components names no component"
        raise AlignError(what, fix=f"set {wishes.section}.components: [language]")
    modules = checked_modules(model.config)
    found = adapted_parameters(wishes, model)
    parts = [
        _with_parameters(_part(name, section, defaults, modules, model, wishes), found, modules)
        for name, section in sections.items()
    ]
    _check_claimed(found, parts, wishes)
    for one, other in combinations(parts, 2):
        _check_apart(one, other)
    _check_heard(parts, wishes)
    for part in parts:
        if part.matrices is not None and not sections[cast(Component, part.component)].target_modules:
            _check_covered(part.component, part.matrices, wishes)
    return parts


def pattern_part(
    pattern: str, defaults: Mapping[str, Any], model: PreTrainedModel, wishes: Wishes | None = None
) -> list[Part]:
    """LoRA by one regular expression, told apart by component where the family is known."""
    hits = _hits(pattern, model, "lora.target_modules")
    modules = known_modules(model.config.model_type)
    experts = adapted_parameters(wishes or Wishes(), model)
    by_component: dict[str, list[str]] = {}
    for name in (*hits, *experts):
        by_component.setdefault((modules.component_of(name) if modules else None) or "model", []).append(name)
    return [
        Part(
            component,
            tuple(name for name in names if name not in experts),
            pattern,
            parameters=tuple(name for name in names if name in experts),
            **_numbers(ComponentSection(), defaults),
        )
        for component, names in by_component.items()
    ]


def adapted_parameters(wishes: Wishes, model: PreTrainedModel) -> tuple[str, ...]:
    """The parameters that `target_parameters` names, by PEFT's rule: names that end so, cut at a dot.

    Raises:
        AlignError: an entry that names none, or one of a linear layer, which components place.
    """
    named = dict(model.named_parameters())
    found: dict[str, None] = {}
    for entry in wishes.target_parameters:
        hits = [name for name in named if name == entry or name.endswith(f".{entry}")]
        where = f"{wishes.section}.target_parameters"
        if not hits:
            bare = (name for name, parameter in named.items() if parameter.dim() == 3)
            likely = ", ".join(dict.fromkeys(map(leaf_name, bare))) or "none has three dimensions"
            what = f"target_parameters names no parameter: {entry!r}"
            raise AlignError(what, where=where, fix=f"parameters of three dimensions end in: {likely}")
        layers = [name for name in hits if of_linear_layer(model, name)]
        if layers:
            what = f"{entry!r} is the weight of a linear layer: {layers[0]}"
            raise AlignError(what, where=where, fix="remove it; components and blocks place LoRA on layers")
        found |= dict.fromkeys(hits)
    return tuple(found)


def _with_parameters(part: Part, found: Sequence[str], modules: Modules) -> Part:
    own = (name for name in found if modules.component_of(name) == part.component)
    return part if part.is_full else replace(part, parameters=tuple(own))


def _check_claimed(found: Sequence[str], parts: Sequence[Part], wishes: Wishes) -> None:
    """What `target_parameters` names lies in the components that train."""
    claimed = {name for part in parts for name in part.parameters}
    beyond = [name for name in found if name not in claimed]
    if beyond:
        raise AlignError(
            f"target_parameters reaches {len(beyond)} parameters outside the components: {beyond[0]}",
            where=f"{wishes.section}.target_parameters",
            fix="name more of the parameter, or the component it is in",
        )


def _part(
    name: Component,
    section: ComponentSection,
    defaults: Mapping[str, Any],
    modules: Modules,
    model: PreTrainedModel,
    wishes: Wishes,
) -> Part:
    if section.train == "full":
        whole = whole_modules(name, modules, model)
        return Part(name, whole, is_full=True, learning_rate=section.learning_rate)
    where = f"{wishes.section}.components.{name}"
    blocks = section.target or "attention+mlp"
    sorted_out = places(model, modules, name, blocks, wishes.leave_out, wishes.target_parameters)
    pattern = section.target_modules
    if pattern is None:
        pattern = as_pattern(sorted_out.chosen, (key for key, _ in model.named_modules()))
    hits = _hits(pattern, model, where)
    stray = [hit for hit in hits if modules.component_of(hit) != name]
    if stray:
        what = f"target_modules of {name} reaches out of it: {', '.join(stray[:2])}"
        raise AlignError(what, where=where, fix="begin it with the component's prefix")
    sorted_out = sorted_out.with_chosen(hits)
    numbers = _numbers(section, defaults)
    return Part(
        name, tuple(hits), pattern, matrices=sorted_out, learning_rate=section.learning_rate, **numbers
    )


def _check_covered(component: str, found: Places, wishes: Wishes) -> None:
    """Nothing of a component stays untrained in silence."""
    if not found.unmatched:
        return
    leaves = list(dict.fromkeys(map(leaf_name, found.unmatched)))
    fix = f"leave them as they are: {wishes.section}.leave_out: [{', '.join(leaves)}]"
    if wishes.section == "lora":
        fix += "; or adapt them: experts by lora.target_parameters, others by lora.target_modules"
    what = f"{len(found.unmatched)} weight matrices of {component} would stay untrained"
    raise AlignError(f"{what}: {by_leaf(found.unmatched)}", where=f"{wishes.section}.components", fix=fix)


def _check_heard(parts: Sequence[Part], wishes: Wishes) -> None:
    """Each entry of `leave_out` names something in a component that trains."""
    known = [part.matrices for part in parts if part.matrices is not None]
    left = [name for found in known for name in found.left_out]
    for entry in wishes.leave_out:
        if not any(name == entry or name.endswith(f".{entry}") for name in left):
            names = dict.fromkeys(
                leaf_name(name) for found in known for name in (*found.chosen, *found.unmatched)
            )
            raise AlignError(
                f"leave_out names nothing that would train: {entry!r}",
                where=f"{wishes.section}.leave_out",
                fix=f"matrices end in: {', '.join(names)}",
            )


def _numbers(section: ComponentSection, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Rank, alpha and dropout: the section's, else the common ones."""
    own = {name: getattr(section, name) for name in ("r", "lora_alpha", "lora_dropout")}
    return {name: defaults[name] if value is None else value for name, value in own.items()}


def whole_modules(component: Component, modules: Modules, model: PreTrainedModel) -> tuple[str, ...]:
    """The modules to train whole for a component; a list of layers stands for its members.

    Raises:
        AlignError: none in this family; or the language model, of which PEFT would keep a second copy.
    """
    import torch

    where = f"lora.components.{component}"
    if component == "language":
        what = "the language model as a whole would be kept twice, once as the reference"
        raise AlignError(what, where=where, fix="use LoRA there, or train all of it: method: full")
    prefixes = {"vision": (modules.vision,) if modules.vision else (), "connector": modules.connector}
    if component not in prefixes:
        raise AlignError(f"{component} cannot be trained whole", where=where, fix="use LoRA there")
    known = dict(model.named_modules())
    found: list[str] = []
    for prefix in (prefix for prefix in prefixes[component] if prefix in known):
        module = known[prefix]
        members = isinstance(module, torch.nn.ModuleList)
        found += [f"{prefix}.{index}" for index in range(len(list(module)))] if members else [prefix]
    if not found:
        what = f"model_type {model.config.model_type} has no {component} to train whole"
        raise AlignError(what, where=where)
    return tuple(found)


def _hits(pattern: str, model: PreTrainedModel, where: str) -> list[str]:
    try:
        hits = matching(pattern, (name for name, _ in model.named_modules()))
    except re.error as error:
        raise AlignError(f"not a regular expression: {pattern!r}: {error}", where=where) from error
    if not hits:
        raise AlignError(
            f"LoRA hits no module: {pattern!r}",
            where=f"{where}, model_type {model.config.model_type}",
            fix=f"modules are named like {_example_modules(model)}",
        )
    return hits


def _check_apart(one: Part, other: Part) -> None:
    both = [
        name
        for name in one.modules
        if any(
            name == two or name.startswith(f"{two}.") or two.startswith(f"{name}.") for two in other.modules
        )
    ]
    if both:
        raise AlignError(
            f"{one.component} and {other.component} overlap: {', '.join(both[:2])}",
            where="lora.components",
            fix="train each module by one component only",
        )


def _example_modules(model: PreTrainedModel) -> str:
    import torch

    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    return ", ".join(names[:1] + names[-2:-1])
