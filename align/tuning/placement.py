"""What really trains in a wrapped model, by component, counted on the model and held against the plan."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align.errors import AlignError
from align.models.families import known_modules
from align.progress import say
from align.tuning.lora_components import Part

if TYPE_CHECKING:
    import torch

_WRAPPERS = re.compile(r"^(?:module\.|_fsdp_wrapped_module\.)*(?:base_model\.model\.)?")


@dataclass(frozen=True)
class PlacedComponent:
    """One line of the table.

    Attributes:
        component: vision, connector, language, ...; `model` for the rest.
        num_modules: adapted modules, or modules that train whole.
        trainable: number of trained parameters.
        ranks: of LoRA, sorted, without repetition; empty elsewhere.
        is_full: whether all weights of the modules train.
        learning_rate: None is the trainer's.
    """

    component: str
    num_modules: int
    trainable: int
    ranks: tuple[int, ...]
    is_full: bool
    learning_rate: float | None


@dataclass(frozen=True)
class Placement:
    """What trains.

    Attributes:
        modules: full names of the adapted modules, and of parameters that are adapted without a layer.
        by_kind: `component: leaf name` -> number of modules.
        trainable, total: numbers of parameters.
        components: one line each.
        matrices: of the planned components, in words: what is adapted, what is left out and why.
    """

    modules: tuple[str, ...]
    by_kind: dict[str, int]
    trainable: int
    total: int
    components: tuple[PlacedComponent, ...]
    matrices: tuple[str, ...] = ()

    def show(self, learning_rate: float | None = None) -> None:
        """Print the table, and what each component's weight matrices do.

        Args:
            learning_rate: the trainer's, for components without one of their own.
        """
        for line in self.table(learning_rate):
            say(f"  {line}")
        for line in self.matrices:
            say(f"  {line}")
        counts = f"{self.trainable:,} of {self.total:,} parameters ({self.trainable / self.total:.2%})"
        say(f"  trains {counts}; everything else is frozen")

    def table(self, learning_rate: float | None = None) -> list[str]:
        """Lines of the table: component, modules, parameters, share of what trains, rank, learning rate."""
        head = f"{'component':<16}{'modules':>8}{'parameters':>14}{'share':>8}{'r':>7}{'lr':>10}"
        lines = [head]
        for row in self.components:
            ends = sorted({row.ranks[0], row.ranks[-1]}) if row.ranks else []
            rank = "-".join(map(str, ends)) or ("full" if row.is_full else "-")
            rate = row.learning_rate or learning_rate
            lines.append(
                f"{row.component:<16}{row.num_modules:>8}{row.trainable:>14,}"
                f"{row.trainable / self.trainable:>8.1%}{rank:>7}{'' if rate is None else f'{rate:g}':>10}"
            )
        return lines


def placement(model: Any, parts: Sequence[Part] = (), exact: bool = True) -> Placement:
    """What trains, counted on the model itself.

    Args:
        model: as the trainer has it: wrapped by PEFT, or with weights of its own that train.
        parts: the plan; empty checks nothing.
        exact: whether each planned module must be there; EVA may leave some without a rank.

    Raises:
        AlignError: nothing is trainable, something outside the adapter is, or the plan was not met.
    """
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    component = component_lookup(base.config.model_type, parts)
    layers = {
        _adapted_name(name, module): module
        for name, module in base.named_modules()
        if isinstance(module, BaseTunerLayer)
    }
    whole = [name for name, module in base.named_modules() if isinstance(module, ModulesToSaveWrapper)]
    if base is model:
        whole = [name for part in parts for name in part.modules]
    trained = {name: p.numel() for name, p in base.named_parameters() if p.requires_grad}
    if isinstance(model, PeftModel):
        _check_adapter_only(trained, layers.values())
    prompts = _prompt_parameters(model)
    if not trained and not prompts:
        raise AlignError("nothing is trainable")
    ranks = {name: layer.r["default"] for name, layer in layers.items() if isinstance(layer, LoraLayer)}
    if parts:
        if isinstance(model, PeftModel):
            _check_not_rewritten(model, parts)
        _check_plan(parts, set(layers), set(whole), exact)
    rates = {part.component: part.learning_rate for part in parts}
    rows = [
        PlacedComponent(
            component=one,
            num_modules=sum(component(name) == one for name in [*layers, *whole]),
            trainable=sum(count for name, count in trained.items() if component(name) == one),
            ranks=tuple(sorted({rank for name, rank in ranks.items() if component(name) == one})),
            is_full=not any(component(name) == one for name in layers),
            learning_rate=rates.get(one),
        )
        for one in sorted({component(name) for name in trained})
    ]
    if prompts:
        rows.append(PlacedComponent("prompt", len(prompts), sum(prompts.values()), (), False, None))
    kinds = Counter(f"{component(name)}: {name.rsplit('.', 1)[-1]}" for name in layers)
    total = sum(_num_weights(parameter) for parameter in base.parameters()) + sum(prompts.values())
    count = sum(trained.values()) + sum(prompts.values())
    spoken_of = [line for part in parts if part.matrices for line in part.matrices.lines(part.component)]
    return Placement(tuple(layers), dict(kinds), count, total, tuple(rows), tuple(spoken_of))


def _adapted_name(name: str, layer: Any) -> str:
    """The module that a layer adapts, or the parameter: PEFT nests the layers of a module's parameters."""
    from peft.tuners.lora import ParamWrapper

    if not isinstance(layer, ParamWrapper):
        return name
    return f"{name.replace('.base_layer', '')}.{layer.parameter_name}"


def _check_adapter_only(trained: Mapping[str, int], layers: Iterable[Any]) -> None:
    """Of a wrapped model only what PEFT's layers brought along may train."""
    own = {name for layer in layers for name in layer.adapter_layer_names} | {"modules_to_save"}
    stray = [name for name in trained if not own & set(name.split("."))]
    if stray:
        raise AlignError(f"not only the adapter trains: {stray[:3]}")


def _prompt_parameters(model: Any) -> dict[str, int]:
    """Of virtual tokens or a prefix: PEFT keeps them beside the model."""
    named = model.named_parameters() if hasattr(model, "prompt_encoder") else ()
    return {n: p.numel() for n, p in named if p.requires_grad and n.startswith("prompt_encoder.")}


def component_lookup(model_type: str, parts: Sequence[Part] = ()) -> Callable[[str], str]:
    """Which component a module or parameter name of the base belongs to; `model` for the rest.

    Args:
        model_type: of the base.
        parts: of what trains whole, all that is inside belongs to the component that asked for it.
    """
    modules = known_modules(model_type)
    whole = {f"{name}.": part.component for part in parts if part.is_full for name in part.modules}

    def component(name: str) -> str:
        asked = (found for prefix, found in whole.items() if f"{name}.".startswith(prefix))
        return next(asked, None) or (modules.component_of(name) if modules else None) or "model"

    return component


def learning_rate_lookup(parts: Sequence[Part], model_type: str) -> Callable[[str], float | None] | None:
    """The learning rate of a parameter by its name in the trained model; None if all train at the trainer's.

    Args:
        parts: the plan.
        model_type: of the base.
    """
    rates = {part.component: part.learning_rate for part in parts if part.learning_rate is not None}
    component = component_lookup(model_type, parts)
    return (lambda name: rates.get(component(_WRAPPERS.sub("", name)))) if rates else None


def place_dropout(peft_model: Any, parts: Sequence[Part]) -> None:
    """Each component's own LoRA dropout; PEFT's config has one, the largest, which the layers came with.

    Dropout that is off already stays off (DPO switches it off).
    """
    import torch
    from peft.tuners.lora import LoraLayer

    wanted = {name: part.lora_dropout for part in parts if not part.is_full for name in part.modules}
    for name, module in peft_model.get_base_model().named_modules():
        if isinstance(module, LoraLayer) and wanted.get(name) is not None:
            for layer in module.lora_dropout.values():
                if isinstance(layer, torch.nn.Dropout):
                    layer.p = min(layer.p, wanted[name] or 0.0)


def _check_not_rewritten(model: Any, parts: Sequence[Part]) -> None:
    """PEFT takes the names of some mixtures of experts for those that transformers 4 had.

    It then turns the pattern into bare names, and `gate_proj`, `up_proj` and `down_proj` of any layer into
    the experts' parameters (`_convert_peft_config_moe` in peft/utils/transformers_weight_conversion.py).
    """
    given = getattr(model.peft_config["default"], "target_modules", None)
    planned = any(part.pattern for part in parts)
    # EVA lists full names there, of those that got a rank.
    if planned and given and not isinstance(given, str) and any("." not in name for name in given):
        raise AlignError(
            f"PEFT rewrites what LoRA is to hit in model_type {model.config.model_type}: {sorted(given)}, "
            f"and experts {sorted(model.peft_config['default'].target_parameters or ())}",
            where="lora.components",
            fix="the installed PEFT cannot adapt it; take another checkpoint",
        )


def _check_plan(parts: Sequence[Part], layers: set[str], whole: set[str], exact: bool) -> None:
    for part in parts if exact else ():
        missed = sorted({*part.modules, *part.parameters} - (whole if part.is_full else layers))
        if missed:
            raise AlignError(
                f"{part.component}: PEFT did not hit {len(missed)} modules: {', '.join(missed[:2])}",
                fix="report this; it was planned from the same model",
            )
    beyond = sorted(layers - {name for part in parts for name in (*part.modules, *part.parameters)})
    if beyond:
        what = f"PEFT hit {len(beyond)} modules that no component asked for: {', '.join(beyond[:2])}"
        raise AlignError(what, fix="report this; it was planned from the same model")


def _num_weights(parameter: torch.nn.Parameter) -> int:
    """Number of weights; 4-bit parameters pack two in a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(state.shape.numel())
