"""Where vision tower, connector and language model sit in each family of models.

Module names as transformers 5.19 builds them (a test builds every family and compares). LoRA is
placed by a regular expression on full module names: bare names such as `q_proj` would reach into
the vision tower, whose projections are called the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from align.errors import AlignError

Component = Literal["vision", "connector", "language", "cross_attention"]
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


@dataclass(frozen=True)
class Family:
    """Module-name prefixes of one family.

    Attributes:
        vision: the image encoder's layers, which is what LoRA may be placed in; None in a family
            that reads text only.
        tower: the whole image encoder, connector included where the family nests it; None like `vision`.
        connector: what maps image features to the language model's width; a Q-Former belongs to it.
        language: the decoder.
        layers: those of `connector` that are one linear layer, with nothing below.
        cross_attention: a regular expression for the modules that attend from text or queries to the
            image; they are a component of their own, and belong to no other.
    """

    vision: str | None = None
    tower: str | None = None
    connector: tuple[str, ...] = ()
    language: str = "model.language_model"
    layers: tuple[str, ...] = ()
    cross_attention: str = ""

    def component_of(self, module: str) -> Component | None:
        """The component a module name belongs to; None for the rest (the LM head, say)."""
        if self.cross_attention and re.match(rf"(?:{self.cross_attention})(?:\.|$)", module):
            return "cross_attention"
        if any(_inside(module, prefix) for prefix in self.connector):
            return "connector"
        if self.tower is not None and _inside(module, self.tower):
            return "vision"
        return "language" if _inside(module, self.language) else None

    def lora_targets(self, components: Sequence[Component], blocks: Blocks) -> str:
        """A regular expression for PEFT's `target_modules`; it matches full module names.

        Raises:
            AlignError: a component that the family does not have.
        """
        leaves = {"attention": _ATTENTION, "mlp": _MLP, "attention+mlp": f"(?:{_ATTENTION}|{_MLP})"}[blocks]
        others = rf"(?!(?:{self.cross_attention})\.)" if self.cross_attention else ""
        patterns = []
        for component in components:
            self._check(component, blocks)
            if component == "cross_attention":
                patterns.append(rf"(?:{self.cross_attention})\.(?:.*\.)?{_CROSS_ATTENTION}")
            elif component == "connector":
                inside = "|".join(re.escape(prefix) for prefix in self.connector)
                patterns.append(rf"{others}(?:{inside})\.(?:.*\.)?{_CONNECTOR}")
                patterns.extend(map(re.escape, self.layers))
            else:
                prefix = self.vision if component == "vision" else self.language
                patterns.append(rf"{others}{re.escape(str(prefix))}\.(?:.*\.)?{leaves}")
        return "|".join(patterns)

    def _check(self, component: Component, blocks: Blocks) -> None:
        if component == "cross_attention":
            if not self.cross_attention:
                having = ", ".join(
                    sorted(name for name, family in FAMILIES.items() if family.cross_attention)
                )
                fix = f"leave it out; families with cross-attention: {having}"
                raise AlignError("the model has no cross-attention", where="lora.components", fix=fix)
            if blocks == "mlp":
                fix = "set lora.blocks: attention, or attention+mlp"
                raise AlignError("cross-attention has no mlp", where="lora.blocks", fix=fix)
        elif component != "language" and self.vision is None:
            fix = "set lora.components: [language]"
            raise AlignError(f"a text-only model has no {component}", where="lora.components", fix=fix)


def _llava_like(layers: str = "encoder") -> Family:
    tower = "model.vision_tower"
    return Family(vision=f"{tower}.{layers}", tower=tower, connector=("model.multi_modal_projector",))


def _idefics_like() -> Family:
    tower = "model.vision_model"
    return Family(
        vision=f"{tower}.encoder", tower=tower, connector=("model.connector",), language="model.text_model"
    )


_QWEN = Family(vision="model.visual.blocks", tower="model.visual", connector=("model.visual.merger",))
FAMILIES: dict[str, Family] = {
    "llava": _llava_like(),
    "llava_next": _llava_like(),
    "llava_onevision": _llava_like(),
    "vipllava": _llava_like(),
    "internvl": _llava_like(),
    "paligemma": _llava_like(),
    "gemma3": _llava_like(),
    "mistral3": _llava_like("transformer"),
    "idefics2": _idefics_like(),
    "idefics3": _idefics_like(),
    "smolvlm": _idefics_like(),
    "blip-2": Family(
        vision="vision_model.encoder",
        tower="vision_model",
        connector=("qformer", "language_projection"),
        language="language_model",
        layers=("language_projection",),
        cross_attention=r"qformer\.encoder\.layer\.\d+\.crossattention",
    ),
    "mllama": Family(
        vision="model.vision_model",
        tower="model.vision_model",
        connector=("model.multi_modal_projector",),
        layers=("model.multi_modal_projector",),
        cross_attention=r"model\.language_model\.layers\.\d+\.cross_attn",
    ),
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": Family(
        vision="model.visual.blocks",
        tower="model.visual",
        connector=("model.visual.merger", "model.visual.deepstack_merger_list"),
    ),
    "llama": Family(language="model"),
    "mistral": Family(language="model"),
    "qwen2": Family(language="model"),
    "qwen3": Family(language="model"),
    "gpt2": Family(language="transformer"),
}


class UnknownFamily(AlignError):
    """A `model_type` that nobody has written down; `align.models.proposal` reads it by its structure."""


def family_of(model_type: str) -> Family:
    """Where the parts of a model sit.

    Raises:
        UnknownFamily: no facts for this `model_type`.
    """
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    raise UnknownFamily(
        f"model_type {model_type!r} is not one of: {', '.join(sorted(FAMILIES))}",
        where="config.json of the checkpoint",
        fix="say where its parts are: `family`, beside the model's path",
    )


def confirm(model_type: str, family: Family) -> None:
    """Take a family from a recipe, for the rest of the process.

    Raises:
        AlignError: the `model_type` is known already, with other facts.
    """
    if FAMILIES.setdefault(model_type, family) != family:
        fix = "leave `family` out, beside the model's path"
        raise AlignError(f"model_type {model_type!r} is a known family", where="model.family", fix=fix)


def reads_images(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint with this `config.json` is a vision-language model; else it reads text only."""
    family = FAMILIES.get(str(config.get("model_type")))
    if family is not None:
        return family.vision is not None
    return any(key.startswith(("vision", "vq_", "image_token")) for key in config)


def matching(pattern: str, modules: Iterable[str]) -> list[str]:
    """The module names that PEFT would hit: those that `pattern` matches as a whole."""
    compiled = re.compile(pattern)
    return [name for name in modules if compiled.fullmatch(name)]


def _inside(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")
