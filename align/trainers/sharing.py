"""When sequences may share their prefix: each condition, and in words why it fails.

Sharing is exact where a token's result depends on nothing but the tokens it attends to and its
position. What is not known to be so goes the two-row way, and the trainer says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from align.models.families import FAMILIES
from align.trainers.attention import ATTENTION, Method
from align.trainers.linear_attention import LINEAR, takes_states

LAYERS = frozenset({"full_attention", "sliding_attention", LINEAR})


@dataclass(frozen=True)
class SharingConfig:
    """How a trainer shares prefixes.

    Attributes:
        mode: `auto` shares where every condition holds and says which one fails; `off` never does.
        attention: the way attention is computed, see `align.trainers.attention`.
        self_check: compare both paths on the first batch and stop where they differ.
    """

    mode: Literal["auto", "off"] = "auto"
    attention: Method = "auto"
    self_check: bool = True


def obstacles(model: Any, args: Any) -> list[str]:
    """The conditions that fail for this model and these training arguments, in words; empty is good.

    Args:
        model: as trained, PEFT wrapper included, dropout already disabled where it will be.
        args: TRL's DPOConfig or SFTConfig.
    """
    found = [words for condition in _CONDITIONS if (words := condition(model, args))]
    return found


def _family(model: Any, _: Any) -> str:
    config = model.config
    text = config.get_text_config()
    if getattr(config, "is_encoder_decoder", False):
        return f"{config.model_type} is an encoder-decoder: the prompt is not a prefix of the answer"
    family = FAMILIES.get(config.model_type)
    if config is not text and (family is None or family.sharing.images != "equal"):
        return f"vision-language family {config.model_type!r} has not been compared with separate rows"
    if not any(text.model_type in known.sharing.decoders for known in FAMILIES.values()):
        return f"decoder {text.model_type!r} has not been compared with separate rows"
    return ""


def _layers(model: Any, _: Any) -> str:
    found = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    if names := ", ".join(sorted(found - LAYERS)):
        return f"layers whose tokens depend on others in a way that was not looked at: {names}"
    if LINEAR in found and not takes_states(model.get_decoder()):
        return f"{LINEAR} layers that do not take the state that a branch begins with"
    return ""


def _attention(model: Any, _: Any) -> str:
    text = model.config.get_text_config()
    if getattr(text, "use_bidirectional_attention", False):
        return "the decoder attends in both directions"
    used = text._attn_implementation
    if used.startswith(ATTENTION):
        return "the model already serves another trainer; load it again"
    return "" if used == "sdpa" else f"attention is {used!r}: shared rows need 'sdpa'"


def has_experts(config: Any) -> bool:
    """Whether a model with this config sends tokens to some of several experts."""
    text = config.get_text_config()
    return any(getattr(text, name, 0) for name in ("num_experts", "num_local_experts", "n_routed_experts"))


def _experts(model: Any, args: Any) -> str:
    """A token's experts depend on it alone; the loss that spreads tokens over experts on all of a row."""
    balanced = has_experts(model.config) and getattr(args, "router_aux_loss_coef", None) != 0
    return "experts are balanced over the tokens of a row, which sharing changes" if balanced else ""


def _adapter(model: Any, _: Any) -> str:
    configs = getattr(model, "peft_config", {}).values()
    kinds = sorted({str(config.peft_type.value) for config in configs if config.is_prompt_learning})
    return f"{kinds[0]} puts virtual tokens in front of each row" if kinds else ""


def _dropout(model: Any, args: Any) -> str:
    layers = [
        name for name, module in model.named_modules() if isinstance(module, nn.Dropout) and module.p > 0
    ]
    if layers:
        return f"dropout is on ({layers[0]}): a shared prefix would be dropped alike in both answers"
    rate = getattr(model.config.get_text_config(), "attention_dropout", 0.0)
    return f"attention dropout is {rate}" if rate else ""


def _truncation(_: Any, args: Any) -> str:
    cut = args.max_length is not None and getattr(args, "truncation_mode", "keep_start") == "keep_end"
    return "truncation_mode 'keep_end' cuts the two prompts of a pair differently" if cut else ""


def _changed_model(_: Any, args: Any) -> str:
    if args.use_liger_kernel:
        return "use_liger_kernel replaces layers of the model when training starts"
    if args.torch_compile:
        return "torch_compile has not been tried on shared rows"
    noisy = getattr(args, "neftune_noise_alpha", None)
    return "neftune_noise_alpha adds noise that depends on a row's length" if noisy else ""


def _parallelism(_: Any, args: Any) -> str:
    plan = getattr(args, "parallelism_config", None)
    split = plan is not None and (plan.cp_size > 1 or plan.sp_size > 1)
    return "context or sequence parallelism cuts rows into pieces" if split else ""


_CONDITIONS: tuple[Callable[[Any, Any], str], ...] = (
    _family,
    _layers,
    _attention,
    _experts,
    _adapter,
    _dropout,
    _truncation,
    _changed_model,
    _parallelism,
)
