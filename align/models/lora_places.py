"""Where LoRA goes: a regular expression on full module names, by component.

Bare names such as `q_proj` would reach into the vision tower, whose projections are called the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from align.errors import AlignError
from align.models.families import FAMILIES
from align.models.family import Component, Modules

Blocks = Literal["attention", "mlp", "attention+mlp"]

_ATTENTION = (
    r"(?:self_attn|attn|attention)\."
    r"(?:q_proj|k_proj|v_proj|o_proj|out_proj|projection|projection_layer|qkv|proj|c_attn|c_proj)"
)
_MLP = (
    r"(?:(?:mlp|feed_forward)\.(?:gate_proj|up_proj|down_proj|fc1|fc2|linear_fc1|linear_fc2|c_fc|c_proj)"
    r"|layers\.\d+\.(?:fc1|fc2))"
)
_CROSS_ATTENTION = r"(?:[qkvo]_proj|query|key|value|dense)"
_CONNECTOR = r"(?:linear\w*|merging_layer|mlp\.[02]|\w*proj|query|key|value|dense)"


def lora_targets(modules: Modules, components: Sequence[Component], blocks: Blocks) -> str:
    """A regular expression for PEFT's `target_modules`; it matches full module names.

    Raises:
        AlignError: a component that the family does not have.
    """
    leaves = {"attention": _ATTENTION, "mlp": _MLP, "attention+mlp": f"(?:{_ATTENTION}|{_MLP})"}[blocks]
    others = rf"(?!(?:{modules.cross_attention})\.)" if modules.cross_attention else ""
    patterns = []
    for component in components:
        _check(modules, component, blocks)
        if component == "cross_attention":
            patterns.append(rf"(?:{modules.cross_attention})\.(?:.*\.)?{_CROSS_ATTENTION}")
        elif component == "connector":
            inside = "|".join(re.escape(prefix) for prefix in modules.connector)
            patterns.append(rf"{others}(?:{inside})\.(?:.*\.)?{_CONNECTOR}")
            patterns.extend(map(re.escape, modules.layers))
        else:
            prefix = modules.vision if component == "vision" else modules.language
            patterns.append(rf"{others}{re.escape(str(prefix))}\.(?:.*\.)?{leaves}")
    return "|".join(patterns)


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The module names that PEFT would hit: those that `pattern` matches as a whole."""
    compiled = re.compile(pattern)
    return [name for name in names if compiled.fullmatch(name)]


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
