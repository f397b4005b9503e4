"""From a recipe's `method` to what the trainer needs: PEFT's config, or which own weights train."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align.errors import AlignError
from align.models.families import FAMILIES
from align.models.loading import first_line
from align.models.lora_places import by_leaf
from align.models.proposal import checked_modules
from align.progress import say
from align.tuning.initialisation import LOFTQ, check_initialisation, check_loftq
from align.tuning.lora import lora_plan
from align.tuning.lora_components import Part, Wishes, listed_parts, whole_modules
from align.tuning.method_sections import TrainingRecipe

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

# Their config class in PEFT, by method.
_ON_MODULES = {"tinylora": "TinyLoraConfig", "peanut": "PeanutConfig", "beft": "BeftConfig"}
_READS_WEIGHTS = ("tinylora", "peanut")
PROMPTS = {
    "prefix_tuning": "PrefixTuningConfig",
    "p_tuning": "PromptEncoderConfig",
    "prompt_tuning": "PromptTuningConfig",
}
"""Methods that put something before the rows, and change no weights: method -> PEFT's config class."""
OWN_WEIGHTS = ("full", "bitfit")
"""Methods without an adapter: the result is a checkpoint."""

_KEYS_AND_VALUES = r"(?:self_attn|attn|attention)\.(?:k_proj|v_proj|qkv|c_attn)"
_LAST_OF_MLP = r"(?:(?:mlp|feed_forward)\.(?:down_proj|fc2|linear_fc2|c_proj)|layers\.\d+\.fc2)"


@dataclass(frozen=True)
class MethodPlan:
    """How a model will train.

    Attributes:
        method: as in the recipe.
        config: PEFT's; None where the model's own weights train.
        parts: what must be hit, by component.
        from_rounding: LoRA starts as LoftQ does.
    """

    method: str
    config: PeftConfig | None
    parts: tuple[Part, ...]
    from_rounding: bool = False


def method_plan(recipe: TrainingRecipe, model: PreTrainedModel, reference: str = "") -> MethodPlan:
    """The plan for a loaded, frozen model; of `full` and `bitfit`, what trains is unfrozen here.

    Args:
        recipe: of either stage.
        model: not yet wrapped.
        reference: why the policy must start as its reference, "adapter off"; empty where there is none.

    Raises:
        AlignError: a method that this family, this quantisation or this stage does not allow, in words.
    """
    if recipe.method == "lora":
        plan = lora_plan(recipe.lora, model)
        from_rounding = recipe.lora.given().get("init_lora_weights") == LOFTQ
        if from_rounding:
            check_loftq(plan.config, reference, getattr(model, "is_loaded_in_4bit", False))
        check_initialisation(plan.config, reference, getattr(model, "is_quantized", False))
        return MethodPlan("lora", plan.config, plan.parts, from_rounding)
    if recipe.method in OWN_WEIGHTS:
        return MethodPlan(recipe.method, None, _own_weights(recipe, model))
    if recipe.method in PROMPTS:
        return MethodPlan(recipe.method, _prompt_config(recipe, model, reference), ())
    if recipe.method == "ia3":
        return _ia3(recipe, model)
    if recipe.method in _READS_WEIGHTS and getattr(model, "is_quantized", False):
        raise AlignError(
            f"{recipe.method} computes with the base's weights, which are quantised",
            where="model.quantization",
            fix="set model.quantization: none, or use lora",
        )
    given = getattr(recipe, recipe.method).given()
    components, blocks = given.pop("components", ["language"]), given.pop("blocks", "attention+mlp")
    wishes = Wishes(tuple(given.pop("leave_out", ())), section=recipe.method)
    none = {"r": None, "lora_alpha": None, "lora_dropout": None}
    parts = listed_parts(components, blocks, none, model, wishes)
    given["target_modules"] = "|".join(part.pattern for part in parts)
    if recipe.method == "beft":
        _check_biases(parts, model)
    return MethodPlan(recipe.method, _config(_ON_MODULES[recipe.method], recipe.method, given), tuple(parts))


def _ia3(recipe: TrainingRecipe, model: PreTrainedModel) -> MethodPlan:
    given = recipe.ia3.given()
    components = given.pop("components", ["language"])
    none = {"r": None, "lora_alpha": None, "lora_dropout": None}
    wanted = re.compile(rf".*\.(?:{_KEYS_AND_VALUES}|{_LAST_OF_MLP})")
    parts = []
    wishes = Wishes(tuple(given.pop("leave_out", ())), section="ia3")
    for part in listed_parts(components, "attention+mlp", none, model, wishes):
        hits = tuple(name for name in part.modules if wanted.fullmatch(name))
        if not hits:
            what = f"no keys, values or MLP that IA3 knows in {part.component}"
            raise AlignError(what, where="ia3.components", fix="leave the component out")
        _check_no_layer_without(part, hits)
        parts.append(Part(part.component, hits, f"(?=(?:{part.pattern})$)(?:{wanted.pattern})"))
    given["target_modules"] = "|".join(part.pattern for part in parts)
    given["feedforward_modules"] = rf".*\.{_LAST_OF_MLP}"
    return MethodPlan("ia3", _config("IA3Config", "ia3", given), tuple(parts))


def _check_no_layer_without(part: Part, hits: tuple[str, ...]) -> None:
    """Linear attention has keys and values fused with its queries, where IA3 has nothing to scale."""
    inside = {name.rpartition(".")[0] for name in hits}
    bare = [name for name in part.modules if name.rpartition(".")[0] not in inside]
    if part.component in ("language", "vision") and bare:
        raise AlignError(
            f"IA3 knows no keys, values or last layer there: {by_leaf(bare)}",
            where="ia3.components",
            fix="use lora; or name them in ia3.leave_out, to train the other layers alone",
        )


def _prompt_config(recipe: TrainingRecipe, model: PreTrainedModel, reference: str) -> PeftConfig:
    method, kind = recipe.method, model.config.model_type
    if reference:
        raise AlignError(
            f"{method} cannot start as its reference: {reference}",
            where="method",
            fix="train it with `align sft`, or use lora, ia3, tinylora, peanut, beft or full here",
        )
    compared = sorted(name for name, family in FAMILIES.items() if family.prompt_learning == "compared")
    if kind not in compared:
        raise AlignError(
            f"{method} has not been tried on {kind!r}: its positions or image masks come from the ids alone",
            where="method",
            fix=f"use lora; families that take it: {', '.join(compared)}",
        )
    given = getattr(recipe, method).given()
    given.setdefault("num_virtual_tokens", 20)
    if method == "p_tuning" or given.get("prefix_projection"):
        given.setdefault("encoder_hidden_size", model.config.get_text_config().hidden_size)
    return _config(PROMPTS[method], method, {"task_type": "CAUSAL_LM", **given})


def _config(kind: str, method: str, given: dict[str, Any]) -> PeftConfig:
    import peft

    build: Callable[..., PeftConfig] = getattr(peft, kind)
    try:
        return build(**given)
    except (TypeError, ValueError, ImportError) as error:
        raise AlignError(f"PEFT refuses the `{method}` section: {first_line(error)}") from error


def _check_biases(parts: list[Part], model: PreTrainedModel) -> None:
    """BEFT adds a bias behind each layer; without one of its own a layer cannot take it in."""
    names = [name for part in parts for name in part.modules]
    without = [name for name in names if getattr(model.get_submodule(name), "bias", None) is None]
    if without:
        raise AlignError(
            f"{len(without)} of {len(names)} layers have no bias, so that the result could not be merged: "
            f"{', '.join(without[:2])}",
            where="beft.components, beft.blocks",
            fix="choose components with biases (most vision towers and connectors), or another method",
        )


def _own_weights(recipe: TrainingRecipe, model: PreTrainedModel) -> tuple[Part, ...]:
    """Unfreeze what trains, and say what it is."""
    if getattr(model, "is_quantized", False):
        raise AlignError(
            f"method {recipe.method} trains the weights themselves, which are quantised",
            where="model.quantization",
            fix="set model.quantization: none, or use lora",
        )
    if model.dtype.itemsize < 4:
        say(
            f"  the weights train in {str(model.dtype).removeprefix('torch.')}, which loses small updates; "
            "model.dtype: float32 with trainer.bf16: true keeps them"
        )
    own = checked_modules(model.config)
    parts = []
    for component in recipe.full.components:
        if component == "language":
            modules = tuple(name for name in (own.language, "lm_head") if _has(model, name))
        else:
            modules = whole_modules(component, own, model)
        trained = 0
        for name in modules:
            for leaf, parameter in model.get_submodule(name).named_parameters():
                if recipe.method == "full" or leaf.rsplit(".", 1)[-1] == "bias":
                    parameter.requires_grad_(True)
                    trained += 1
        if not trained:
            what = f"{component} of model_type {model.config.model_type} has no bias to train"
            raise AlignError(what, where="full.components", fix="leave it out, or use lora")
        rate = recipe.full.learning_rates.get(component)
        parts.append(Part(component, modules, is_full=True, learning_rate=rate))
    return tuple(parts)


def _has(model: PreTrainedModel, name: str) -> bool:
    try:
        model.get_submodule(name)
    except AttributeError:
        return False
    return True
