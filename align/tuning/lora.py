"""The `lora` section of a recipe, and PEFT's config for it on a given model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from align.config.library_sections import PEFT_STAGE_OWNS, section
from align.errors import AlignError
from align.models.loading import first_line
from align.models.lora_places import Blocks, as_pattern
from align.tuning.initialisation import with_settings
from align.tuning.lora_components import Components, Part, Wishes, listed_parts, pattern_part, section_parts

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

_STARTS = r"^(gaussian|orthogonal|mica|eva|pissa(_niter_\d+)?|olora|corda|lora_ga|loftq)$"
_OWN_LORA_KEYS: dict[str, tuple[Any, Any]] = {
    "components": (
        Components,
        Field(
            default=["language"],
            description="where LoRA goes: a list of vision, connector, language; or a section for each, with "
            "r, lora_alpha, lora_dropout, learning_rate, target, or train: full",
        ),
    ),
    # PEFT's annotation has neither lora_ga nor the numbers of pissa_niter_.
    "init_lora_weights": (
        bool | Annotated[str, Field(pattern=_STARTS)],
        Field(
            default=True,
            description="true, gaussian, orthogonal, mica, eva, corda, lora_ga, olora, pissa, pissa_niter_N; "
            "on a 4-bit base also loftq",
        ),
    ),
    # Of lists, which YAML has, where PEFT's annotation wants tuples.
    "layer_replication": (
        list[Annotated[list[int], Field(min_length=2, max_length=2)]] | None,
        Field(default=None, description="[start, end) ranges of layers to stack; text-only Llama alone"),
    ),
    "blocks": (Blocks, Field(default="attention+mlp", description="which layers of listed components")),
    "leave_out": (
        list[str],
        Field(
            default=[],
            description="weight matrices of those components that stay frozen, by the ends of their names: "
            "[mlp.gate, mlp.experts.down_proj]; what is neither adapted nor named here stops the stage",
        ),
    ),
}
# PEFT's own, LoraConfig's defaults.
_DEFAULTS = {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0}


class LoraSection(section("LoraConfig", PEFT_STAGE_OWNS, _OWN_LORA_KEYS)):
    """PEFT's `LoraConfig` by its own names, plus `components` and `blocks`.

    `target_modules`, when set, is a regular expression over full module names and replaces both.
    """

    @model_validator(mode="after")
    def _one_placement(self) -> LoraSection:
        given = self.given()
        if given.get("target_modules") is not None and given.get("leave_out"):
            raise ValueError("target_modules says itself what is adapted: remove leave_out")
        if not isinstance(given.get("components"), dict):
            return self
        clash = {"blocks", "target_modules", "rank_pattern", "alpha_pattern"} & set(given)
        if clash:
            raise ValueError(f"components with a section each take the place of {', '.join(sorted(clash))}")
        return self


@dataclass(frozen=True)
class LoraPlan:
    """PEFT's config for a model, and what it must hit there, by component."""

    config: LoraConfig
    parts: tuple[Part, ...]


def lora_plan(section: LoraSection, model: PreTrainedModel) -> LoraPlan:
    """PEFT's config with `target_modules` as a regular expression that is known to hit something.

    Ranks and alphas of single components become `rank_pattern` and `alpha_pattern`, components that train
    whole `modules_to_save`. PEFT has one dropout an adapter: the largest is passed on, and
    `align.tuning.placement.place_dropout` lowers it where a component asks for less.

    Raises:
        AlignError: unknown family without `target_modules`, bare names, a component that hits nothing,
            overlaps another, or has matrices that the recipe does not speak of; arguments that PEFT refuses.
    """
    from peft import LoraConfig

    given = section.given()
    components = given.pop("components", ["language"])
    blocks = given.pop("blocks", "attention+mlp")
    target = given.pop("target_modules", None)
    wishes = Wishes(tuple(given.pop("leave_out", ())), tuple(given.get("target_parameters") or ()))
    defaults = _DEFAULTS | {name: given[name] for name in _DEFAULTS if given.get(name) is not None}
    if target is not None:
        _check_full_names(target)
        parts = pattern_part(target, defaults, model, wishes)
    elif isinstance(components, dict):
        parts = section_parts(components, defaults, model, wishes)
        given |= _patterns(parts, given)
    else:
        parts = listed_parts(components, blocks, defaults, model, wishes)
    placed = [part for part in parts if not part.is_full]
    if not placed:
        raise AlignError(
            "no component has LoRA: all train whole",
            where="lora.components",
            fix="set method: full and full.components",
        )
    if wishes.target_parameters:
        _check_parameters_take(given)
    given["target_modules"] = "|".join(dict.fromkeys(part.pattern for part in placed))
    try:
        return LoraPlan(LoraConfig(**with_settings(given)), tuple(parts))
    except (TypeError, ValueError, ImportError) as error:
        raise AlignError(f"PEFT refuses the `lora` section: {first_line(error)}") from error


def lora_config(section: LoraSection, model: PreTrainedModel) -> LoraConfig:
    """PEFT's config alone; see `lora_plan`."""
    return lora_plan(section, model).config


def _patterns(parts: list[Part], given: dict[str, Any]) -> dict[str, Any]:
    """`r` and `lora_alpha` of the first component, patterns for the others, and what is saved whole."""
    placed = [part for part in parts if not part.is_full]
    if not placed:
        return {}
    first = placed[0]
    anchored = {part.component: f"^(?:{'|'.join(_patterns_of(part))})" for part in placed}
    whole = [name for part in parts if part.is_full for name in part.modules]
    return {
        "r": first.r,
        "lora_alpha": first.lora_alpha,
        "lora_dropout": max(part.lora_dropout or 0.0 for part in placed),
        "rank_pattern": {anchored[part.component]: part.r for part in placed if part.r != first.r},
        "alpha_pattern": {
            anchored[part.component]: part.lora_alpha
            for part in placed
            if part.lora_alpha != first.lora_alpha
        },
        "modules_to_save": [*(given.get("modules_to_save") or []), *whole] or None,
    }


def _patterns_of(part: Part) -> list[str]:
    return [part.pattern, *([as_pattern(part.parameters, part.parameters)] if part.parameters else [])]


def _check_parameters_take(given: Mapping[str, Any]) -> None:
    """PEFT's layer around a parameter adds B A to it: it has no place for what acts on a layer's input or
    looks at a layer's weight, and says so only when it is built.

    Raises:
        AlignError: a key that it does not take.
    """
    start = given.get("init_lora_weights", True)
    clash = {
        "lora_dropout": given.get("lora_dropout"),
        "use_dora": given.get("use_dora"),
        "lora_bias": given.get("lora_bias"),
        "init_lora_weights": isinstance(start, str) and start != "gaussian",
    }
    for name, is_set in clash.items():
        if is_set:
            raise AlignError(
                f"target_parameters takes no {name}: PEFT adds B A to the parameter itself",
                where=f"lora.{name}",
                fix=f"leave {name} out, or leave the experts frozen (lora.leave_out)",
            )


def _check_full_names(target: Any) -> None:
    if isinstance(target, list) or target == "all-linear" or re.fullmatch(r"[\w.]+", target):
        raise AlignError(
            f"lora.target_modules = {target!r}: bare names reach into the vision tower",
            fix="give one regular expression over full module names, or set lora.components and lora.blocks",
        )
