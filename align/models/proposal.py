"""Where vision, connector and language sit in a model that `align.models.families` does not know: a proposal.

The model is built on the meta device, from its config alone, and asked: the tower is what it calls its image
encoder (`get_encoder`), the language model its decoder (`get_decoder`), and a connector what it runs on an
image beside these (read in the source of `get_image_features`, or of `forward`) or what stands in the tower
behind its layers. A model that reads images and does not say where is not guessed at, and never taken for
text only. What is found is shown, to be checked and put into the recipe (`model.family`); it is never used
unseen.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from inspect import getsource, isfunction, signature, unwrap
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
        AlignError: no token embedding, or a model that reads images and does not say where.
    """
    modules: dict[str, nn.Module] = dict(model.named_modules())
    embedding = _name_of(modules, _token_embedding(model))
    if embedding is None:
        raise AlignError("the model has no token embedding", where=type(model).__name__)
    cross = _cross_attention(modules)
    if not _takes_images(model):
        language = _grown(_parent(embedding), avoid=[])
        return Modules(
            vision=None, tower=None, connector=(), language=language, layers=(), cross_attention=cross
        )
    tower = _tower(model, modules, embedding)
    language = _language(model, modules, embedding, tower)
    runs = _run_on_images(model, modules, (tower, language))
    encoders = [name for name in runs if _reads_pixels(modules[name])]
    if encoders:
        raise _unsaid(model, f"has two image encoders, {tower} and {', '.join(encoders)}")
    blocks = _blocks(modules, tower)
    connector = _with_matrices(modules, runs) or _inside_tower(modules, tower, blocks)
    linear = tuple(name for name in connector if not list(modules[name].children()))
    return Modules(
        vision=blocks,
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
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    sees = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES or reads_images(config.to_dict())
    auto = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    try:
        with torch.device("meta"):
            return auto.from_config(config)
    except (ValueError, KeyError, TypeError, RuntimeError, ImportError, AttributeError) as error:
        said = " ".join(str(error).split())[:300]
        raise AlignError(
            f"transformers cannot build model_type {config.model_type!r}: {said}",
            fix="install the package that it names, a transformers that can, or take another checkpoint",
        ) from error


def _token_embedding(model: Any) -> Any:
    try:
        return model.get_input_embeddings()
    except NotImplementedError:
        return None


def _takes_images(model: Any) -> bool:
    """By the arguments of `forward`, which name pixels or patches; not where the vision config is null."""
    if getattr(model.config, "vision_config", model.config) is None:
        return False
    names = signature(type(model).forward).parameters
    return any(re.search(r"pixel|patches|^images?$", name) for name in names)


def _unsaid(model: Any, what: str) -> AlignError:
    kind = type(model).__name__
    parts = [
        name for name, module in model.named_modules() if 0 < name.count(".") < 3 and list(module.children())
    ]
    return AlignError(
        f"{kind} reads images and {what}",
        where=f"model_type {model.config.model_type!r}",
        fix="name its vision, tower, connector and language by hand, in `family` beside the model's path; "
        f"its modules: {', '.join(parts[:12])}",
    )


def _tower(model: Any, modules: dict[str, nn.Module], embedding: str) -> str:
    """What the model calls its image encoder."""
    found = _name_of(modules, model.get_encoder(modality="image"))
    if not found or _within(embedding, found):
        raise _unsaid(model, "calls no part of it its image encoder")
    return found


def _language(model: Any, modules: dict[str, nn.Module], embedding: str, tower: str) -> str:
    """What the model calls its decoder, or what holds the token embedding inside of it."""
    found = _name_of(modules, model.get_decoder())
    if not found or _touches(found, (tower,)):
        found = _grown(_parent(embedding), avoid=[tower])
    if not found or _touches(found, (tower,)) or not _within(embedding, found):
        raise _unsaid(model, "has no decoder apart from its image encoder")
    return found


def _run_on_images(model: Any, modules: dict[str, nn.Module], parts: tuple[str, str]) -> list[str]:
    """Modules beside tower and language model that see images, by the source of the model's own methods.

    Those are what `get_image_features` names, itself and in the methods it calls, and what `forward` names
    itself (Llama 4 projects there); where there is no `get_image_features`, also what `forward` calls.
    """
    own = [model, getattr(model, "base_model", model)]
    tells = any(hasattr(owner, "get_image_features") for owner in own)
    named = [part for owner in own for part in _named_in(owner, "forward", deep=not tells)]
    if tells:
        named += [part for owner in own for part in _named_in(owner, "get_image_features")]
    skipped = (*parts, _name_of(modules, model.get_output_embeddings()) or "")
    names = [_name_of(modules, part) for part in named if part is not model]
    beside = [name for name in dict.fromkeys(names) if name and not _touches(name, skipped)]
    return [name for name in beside if not any(_within(name, other) for other in beside if other != name)]


def _named_in(
    owner: Any, method: str, deep: bool = True, seen: set[str] | None = None
) -> Iterator[nn.Module]:
    """Submodules that a method of `owner` names after `self`; `deep`: also those in methods that it calls."""
    from torch import nn

    seen = set() if seen is None else seen
    function = unwrap(getattr(type(owner), method, len))
    if method in seen or not isfunction(function):
        return
    seen.add(method)
    for node in ast.walk(ast.parse(textwrap.dedent(getsource(function)))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            part = getattr(owner, node.attr, None)
            if isinstance(part, nn.Module):
                yield part
            elif deep and callable(part):
                yield from _named_in(owner, node.attr, deep, seen)


def _reads_pixels(module: nn.Module) -> bool:
    return getattr(module, "main_input_name", "") == "pixel_values"


def _with_matrices(modules: dict[str, nn.Module], names: Iterable[str]) -> tuple[str, ...]:
    """Those that hold a matrix, in the order of the model."""
    kept = {name for name in names if any(p.dim() > 1 for p in modules[name].parameters())}
    return tuple(name for name in modules if name in kept)


def _touches(name: str, others: Iterable[str]) -> bool:
    """Whether a module is one of the others, in one, or around one."""
    return any(_within(name, other) or _within(other, name) for other in others)


def _name_of(modules: dict[str, nn.Module], wanted: Any) -> str | None:
    return next((name for name, module in modules.items() if module is wanted), None)


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _grown(name: str, avoid: list[str]) -> str:
    """The largest module around `name`, short of the whole model, that holds nothing of `avoid`."""
    while (parent := _parent(name)) and not any(other.startswith(parent + ".") for other in avoid):
        name = parent
    return name


def _inside_tower(modules: dict[str, nn.Module], tower: str, blocks: str) -> tuple[str, ...]:
    """The tower's own children beside its layers that hold linear layers and embed nothing: a merger, say."""
    children = [f"{tower}.{name}" for name, _ in modules[tower].named_children()]
    return tuple(
        child
        for child in children
        if not _touches(child, (blocks,))
        and "embed" not in child.removeprefix(tower)
        and any(hasattr(layer, "in_features") for layer in modules[child].modules())
    )


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
