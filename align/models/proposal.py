"""Where vision, connector and language sit in a model that `align.models.families` does not know: a proposal.

The model is built on the meta device, from its config alone, and read by structure: a tower is what holds
the convolution that cuts an image into patches, the language model what holds the input embedding, and a
connector what stands between them. What is found is shown, to be checked and put into the recipe
(`model.family`); it is never used unseen.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from align.errors import AlignError
from align.models.families import UnknownFamily, modules_of, reads_images
from align.models.family import Modules

if TYPE_CHECKING:
    from torch import nn

_ATTENTION = re.compile(r"attn|attention")
_CROSS = re.compile(r"cross_?att")


def checked_modules(config: Any) -> Modules:
    """Where the parts sit of the model that `config` describes, as written down or confirmed.

    Args:
        config: transformers' `PreTrainedConfig`.

    Raises:
        AlignError: an unknown `model_type`; shows what it would be, to be confirmed.
    """
    try:
        return modules_of(config.model_type)
    except UnknownFamily as error:
        raise AlignError(
            f"model_type {config.model_type!r} is not a known family; by its structure it would be:\n"
            + as_recipe(propose(config)),
            where=error.where,
            fix="check these names (LoRA's components go by them) and put the section into the recipe",
        ) from error


def propose(config: Any) -> Modules:
    """The modules of the model that `config` describes; takes no weights, and hardly any memory.

    Args:
        config: transformers' `PreTrainedConfig`.

    Raises:
        AlignError: transformers cannot build the model, or it has no token embedding.
    """
    return inspect(_on_meta(config))


def inspect(model: Any) -> Modules:
    """The modules of a built model, with or without weights.

    Raises:
        AlignError: no token embedding.
    """
    modules: dict[str, nn.Module] = dict(model.named_modules())
    embedding = _name_of(modules, model.get_input_embeddings())
    if embedding is None:
        raise AlignError("the model has no token embedding", where=type(model).__name__)
    patches = _convolutions(modules)
    language = _grown(_parent(embedding), avoid=patches)
    cross = _cross_attention(modules)
    if not patches:
        return Modules(
            vision=None, tower=None, connector=(), language=language, layers=(), cross_attention=cross
        )
    tower = _grown(_parent(patches[0]), avoid=[embedding])
    head = _name_of(modules, model.get_output_embeddings())
    connector = _beside(modules, [tower, language, head or ""]) or _inside_tower(modules, tower, patches)
    linear = tuple(name for name in connector if not list(modules[name].children()))
    return Modules(
        vision=_blocks(modules, tower),
        tower=tower,
        connector=connector,
        language=language,
        layers=tuple(name for name in linear if hasattr(modules[name], "in_features")),
        cross_attention=cross,
    )


def as_recipe(modules: Modules) -> str:
    """The proposal as lines of a recipe: the section that confirms it."""
    given = {name: value for name, value in asdict(modules).items() if value}
    lines = [f"    {name}: {json.dumps(value)}" for name, value in given.items()]
    return "\n".join(["  model:", "   family:", *lines])


def _on_meta(config: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    auto = AutoModelForImageTextToText if reads_images(config.to_dict()) else AutoModelForCausalLM
    try:
        with torch.device("meta"):
            return auto.from_config(config)
    except (ValueError, KeyError, TypeError, RuntimeError, ImportError, AttributeError) as error:
        raise AlignError(
            f"transformers cannot build model_type {config.model_type!r}: {error}",
            fix="install the transformers that can, or take another checkpoint",
        ) from error


def _convolutions(modules: dict[str, nn.Module]) -> list[str]:
    """Names of the 2D and 3D convolutions: patches are cut by one."""
    from torch import nn

    return [name for name, module in modules.items() if isinstance(module, nn.Conv2d | nn.Conv3d)]


def _name_of(modules: dict[str, nn.Module], wanted: Any) -> str | None:
    return next((name for name, module in modules.items() if module is wanted), None)


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _grown(name: str, avoid: list[str]) -> str:
    """The largest module around `name`, short of the whole model, that holds nothing of `avoid`."""
    while (parent := _parent(name)) and not any(other.startswith(parent + ".") for other in avoid):
        name = parent
    return name


def _beside(modules: dict[str, nn.Module], parts: list[str]) -> tuple[str, ...]:
    """The topmost modules with weights that lie outside of `parts` and hold none of them."""
    found: list[str] = []
    for name, module in modules.items():
        if not name or any(_within(name, other) for other in [*parts, *found]):
            continue
        holds = any(_within(other, name) for other in parts if other)
        if not holds and any(parameter.dim() > 1 for parameter in module.parameters()):
            found.append(name)
    return tuple(found)


def _inside_tower(modules: dict[str, nn.Module], tower: str, patches: list[str]) -> tuple[str, ...]:
    """The tower's own children that hold linear layers, and are neither its blocks nor its patches."""
    others = {_blocks(modules, tower), *(patch for name in patches for patch in _above(name))}
    children = [f"{tower}.{name}" for name, _ in modules[tower].named_children()]
    return tuple(
        child
        for child in children
        if child not in others and any(hasattr(layer, "in_features") for layer in modules[child].modules())
    )


def _above(name: str) -> list[str]:
    """The name and those of everything around it."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _blocks(modules: dict[str, nn.Module], tower: str) -> str:
    """What holds the tower's layers: the list itself where it stands directly in the tower."""
    from torch import nn

    lists = [
        name
        for name, module in modules.items()
        if _within(name, tower) and isinstance(module, nn.ModuleList) and _attends(module)
    ]
    topmost = [name for name in lists if not any(_within(name, other) for other in lists if other != name)]
    if len(topmost) != 1:
        return tower
    parent = _parent(topmost[0])
    return topmost[0] if parent == tower else parent


def _attends(blocks: nn.ModuleList) -> bool:
    return any(_ATTENTION.search(name) for block in blocks for name, _ in block.named_children())


def _cross_attention(modules: dict[str, nn.Module]) -> str:
    """A regular expression for the modules named cross-attention, layer numbers generalised."""
    named = [name for name in modules if _CROSS.search(name.rpartition(".")[2])]
    kinds = sorted({re.sub(r"(?<=\\\.)\d+(?=\\\.)", r"\\d+", re.escape(name)) for name in named})
    return "|".join(kinds)


def _within(name: str, prefix: str) -> bool:
    return bool(prefix) and (name == prefix or name.startswith(prefix + "."))
