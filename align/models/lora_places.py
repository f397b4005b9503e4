"""Where LoRA goes: a component's weight matrices, sorted, and a regular expression on full module names.

Bare names such as `q_proj` would reach into the vision tower, whose projections are called the same; and a
list of known names would leave out, without a word, whatever the next model calls its own. So the built model
is asked (`align.models.weight_matrices`), and what is not adapted is named, never passed over.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from align.errors import AlignError
from align.models.families import FAMILIES, known_modules
from align.models.family import Component, Modules
from align.models.weight_matrices import is_below, is_linear, weight_matrices

Blocks = Literal["attention", "mlp", "attention+mlp"]


@dataclass(frozen=True)
class Places:
    """The weight matrices of one component; each stands in one field.

    Names are of the linear layer, or of the parameter where no linear layer holds it.

    Attributes:
        chosen: linear layers that LoRA goes to.
        parameters: what `target_parameters` names.
        not_asked: linear layers that were not asked for: of the other block, or beside `target_modules`.
        left_out: what `leave_out` names.
        unread: linear layers behind the last one whose output the model reads (`vision_feature_layer`).
        outside: of the tower, but not in its layers: patch embedding, pooling head.
        unmatched: the rest, which nobody has spoken of.
    """

    chosen: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    not_asked: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()

    def with_chosen(self, hits: Sequence[str]) -> Places:
        """The same with other linear layers chosen; what is then not chosen was not asked for."""
        now = frozenset(hits)
        fields = {name: tuple(one for one in found if one not in now) for name, found in vars(self).items()}
        passed_over = tuple(name for name in self.chosen if name not in now)
        return Places(**{**fields, "chosen": tuple(hits), "not_asked": fields["not_asked"] + passed_over})

    def lines(self, component: str) -> list[str]:
        """What is adapted and what is not, counted by name."""
        rows = {
            "adapted": (*self.chosen, *self.parameters),
            "not asked for": self.not_asked,
            "left out": self.left_out,
            "never read by the model": self.unread,
            "outside the layers": self.outside,
            "not adapted": self.unmatched,
        }
        total = sum(map(len, rows.values()))
        head = f"{component}: {len(rows['adapted'])} of {total} weight matrices"
        return [head, *(f"  {name}: {by_leaf(names)}" for name, names in rows.items() if names)]


def places(
    model: Any,
    modules: Modules,
    component: Component,
    blocks: Blocks,
    leave_out: Sequence[str] = (),
    target_parameters: Sequence[str] = (),
) -> Places:
    """The matrices of a component, sorted by what a recipe asks for.

    Args:
        model: built, with or without weights, not wrapped.
        leave_out: ends of names, cut at a dot: `mlp.gate`, `experts.down_proj`.
        target_parameters: PEFT's, ends of parameter names.

    Raises:
        AlignError: a component that the family does not have.
    """
    _check(modules, component, blocks)
    places_of: dict[str, list[str]] = {name: [] for name in Places.__dataclass_fields__}
    dead = _unread_layers(model, modules) if component == "vision" else ()
    for name, kind in weight_matrices(model, modules, component):
        if _ends(name, leave_out):
            field = "left_out"
        elif _ends(name, [ending.removesuffix(".weight") for ending in target_parameters]):
            field = "parameters"
        elif component == "vision" and not is_below(name, str(modules.vision)):
            field = "outside"
        elif any(is_below(name, layer) for layer in dead):
            field = "unread"
        elif kind == "other":
            field = "unmatched"
        elif component in ("connector", "cross_attention") or kind in blocks.split("+"):
            field = "chosen"
        else:
            field = "not_asked"
        places_of[field].append(name)
    return Places(**{name: tuple(found) for name, found in places_of.items()})


def unreached(model: Any) -> list[str]:
    """Ends of the names of a language model's matrices that LoRA on layers does not reach, such as experts
    and routers: what `leave_out` must name where they stay frozen."""
    modules = known_modules(model.config.model_type)
    if modules is None:
        return []
    return list(dict.fromkeys(map(leaf_name, places(model, modules, "language", "attention+mlp").unmatched)))


def of_linear_layer(model: Any, parameter: str) -> bool:
    """Whether a parameter, by its full name, is a linear layer's own."""
    return is_linear(model.get_submodule(parameter.rpartition(".")[0]))


def as_pattern(chosen: Iterable[str], names: Iterable[str]) -> str:
    """A regular expression for `chosen` and nothing else of `names`; short where all layers are alike.

    >>> as_pattern(["a.0.q", "a.1.q", "a.1.v"], ["a.0.q", "a.1.q", "a.0.v", "a.1.v", "a.0", "a.1"])
    'a\\\\.\\\\d+\\\\.q|a\\\\.1\\\\.v'
    """
    wanted = dict.fromkeys(chosen)
    if not wanted:
        return "(?!)"
    kinds: dict[str, set[str]] = {}
    for name in names:
        kinds.setdefault(_generalised(name), set()).add(name)
    by_parent: dict[str, dict[str, None]] = {}
    for name in wanted:
        general = _generalised(name)
        whole = kinds[general] <= wanted.keys()
        parent, _, leaf = (general if whole else re.escape(name)).rpartition(r"\.")
        by_parent.setdefault(parent, {})[leaf] = None
    return "|".join(
        (f"{parent}\\." if parent else "")
        + (next(iter(leaves)) if len(leaves) == 1 else f"(?:{'|'.join(leaves)})")
        for parent, leaves in by_parent.items()
    )


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The module names that PEFT would hit: those that `pattern` matches as a whole."""
    compiled = re.compile(pattern)
    return [name for name in names if compiled.fullmatch(name)]


def by_leaf(names: Iterable[str]) -> str:
    """Names behind their layer's number, counted.

    >>> by_leaf(["model.layers.0.mlp.gate", "model.layers.1.mlp.gate"])
    'mlp.gate 2'
    """
    return ", ".join(f"{leaf} {count}" for leaf, count in Counter(map(leaf_name, names)).items())


def leaf_name(name: str) -> str:
    """What stands behind the last number in the name, which is the layer's; all of it without a number."""
    return re.sub(r"^.*\.\d+\.", "", name)


def _unread_layers(model: Any, modules: Modules) -> tuple[str, ...]:
    """The tower's layers behind the last whose output is read.

    `vision_feature_layer` counts hidden states, of which the first is the embedding: with n layers, -2 is the
    output of layer n - 2, and layer n - 1 is computed for nothing.
    """
    config = model.config
    read = getattr(config, "vision_feature_layer", None)
    read = getattr(config, "vision_feature_layers", None) if read is None else read
    if read is None or modules.vision is None:
        return ()
    layer = re.compile(rf"{re.escape(modules.vision)}(?:\.[a-z_]+)*?\.(\d+)")
    found = {name: int(match[1]) for name, _ in model.named_modules() if (match := layer.fullmatch(name))}
    if not found:
        return ()
    count = max(found.values()) + 1
    last = max(one if one >= 0 else count + 1 + one for one in ([read] if isinstance(read, int) else read))
    return tuple(name for name, number in found.items() if number >= last)


def _joined(parent: str, leaves: list[str]) -> str:
    inside = leaves[0] if len(leaves) == 1 else f"(?:{'|'.join(leaves)})"
    return f"{parent}\\.{inside}" if parent else inside


def _generalised(name: str) -> str:
    return re.sub(r"(?<=\\\.)\d+(?=\\\.|$)", r"\\d+", re.escape(name))


def _ends(name: str, endings: Sequence[str]) -> bool:
    return any(name == ending or name.endswith(f".{ending}") for ending in endings)


def _check(modules: Modules, component: Component, blocks: Blocks) -> None:
    if component == "cross_attention":
        if not modules.cross_attention:
            having = ", ".join(
                sorted(name for name, family in FAMILIES.items() if family.modules.cross_attention)
            )
            fix = f"leave it out; families with cross-attention: {having}"
            raise AlignError("the model has no cross-attention", where="lora.components", fix=fix)
        if blocks == "mlp":
            fix = "set lora.blocks: attention, or attention+mlp"
            raise AlignError("cross-attention has no mlp", where="lora.blocks", fix=fix)
    elif component != "language" and modules.vision is None:
        fix = "set lora.components: [language]"
        raise AlignError(f"a text-only model has no {component}", where="lora.components", fix=fix)
