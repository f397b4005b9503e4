"""The families of models, one file a family or a few of one make: all their facts stand there and only there.

A file gives `FAMILIES`, a record for each `model_type`, and is found by standing in this folder. What one
file's families do the same way is written in it once.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from align.errors import AlignError
from align.models.family import Family, Modules, Processor

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for file in iter_modules(__path__)
    for family in import_module(f"{__name__}.{file.name}").FAMILIES
}
_CONFIRMED: dict[str, Modules] = {}


class UnknownFamily(AlignError):
    """A `model_type` that nobody has written down; `align.models.proposal` reads it by its structure."""


def modules_of(model_type: str) -> Modules:
    """Where the parts of a model sit.

    Raises:
        UnknownFamily: no facts for this `model_type`.
    """
    found = known_modules(model_type)
    if found is not None:
        return found
    raise UnknownFamily(
        f"model_type {model_type!r} is not one of: {', '.join(sorted(FAMILIES))}",
        where="config.json of the checkpoint",
        fix="say where its parts are: `family`, beside the model's path",
    )


def known_modules(model_type: str) -> Modules | None:
    """The same, None where it is neither known nor confirmed by a recipe."""
    family = FAMILIES.get(model_type)
    return family.modules if family is not None else _CONFIRMED.get(model_type)


def confirm(model_type: str, modules: Modules) -> None:
    """Take a family's module names from a recipe, for the rest of the process; no other fact of it is known.

    Raises:
        AlignError: the `model_type` is known already, with other facts.
    """
    if (known_modules(model_type) or modules) != modules:
        fix = "leave `family` out, beside the model's path"
        raise AlignError(f"model_type {model_type!r} is a known family", where="model.family", fix=fix)
    _CONFIRMED[model_type] = modules


def reads_images(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint with this `config.json` is a vision-language model; else it reads text only."""
    modules = known_modules(str(config.get("model_type")))
    return modules.vision is not None if modules is not None else says_images(config)


def says_images(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` speaks of images, whatever is known of its family."""
    if "vision_config" in config:
        return config["vision_config"] is not None
    return any(key.startswith(("vision", "vq_", "image_token")) for key in config)


def known_processors() -> dict[str, Processor]:
    """Class name -> facts."""
    found = (family.processor for family in FAMILIES.values())
    return {processor.name: processor for processor in found if processor is not None}


def processor_facts(processor: Any) -> Processor | None:
    """What is known of a loaded processor, by its class; None for a tokenizer and for an unknown one."""
    return known_processors().get(type(processor).__name__)
