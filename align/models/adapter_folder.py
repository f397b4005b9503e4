"""An adapter folder as PEFT writes it: what it is, what it was trained on, what can be done with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import AlignError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER = "adapter"
"""The folder of a stage that holds the adapter."""
BASE_RECORD = "base.json"
"""Beside the adapter's weights: path, digest and quantisation of the base that it was trained on."""

# They put tokens or layers before the weights, and have nothing to add to them.
_NOT_WEIGHTS = {
    "PROMPT_TUNING": "prompt tuning",
    "MULTITASK_PROMPT_TUNING": "multitask prompt tuning",
    "P_TUNING": "P-tuning",
    "PREFIX_TUNING": "prefix tuning",
    "ADAPTION_PROMPT": "an adaption prompt",
    "CPT": "context-aware prompt tuning",
}
# PEFT computes their change from the whole base, which a merge layer by layer does not have.
_NEEDS_WHOLE_BASE = {"TINYLORA": "TinyLoRA", "PEANUT": "PEANuT", "BEFT": "BEFT"}
# PEFT takes a part out of the base's weights when it loads such an adapter, by what it finds there.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq")


@dataclass(frozen=True)
class Adapter:
    """A folder with `adapter_config.json` and `adapter_model.safetensors`.

    Attributes:
        config: PEFT's config, as written.
        base: the record of the base (`path`, `digest`, and `quantization` where it had one); empty when
            the adapter comes from elsewhere.
    """

    path: Path
    config: dict[str, Any]
    base: dict[str, str]

    @property
    def kind(self) -> str:
        """PEFT's name of the method, such as LORA."""
        return str(self.config.get("peft_type", "LORA"))

    @property
    def quantization(self) -> str:
        """How the base was quantised in training: none, nf4 or int8."""
        return self.base.get("quantization", "none")

    @property
    def initialisation(self) -> str:
        """`init_lora_weights` where it names a method, else empty."""
        given = self.config.get("init_lora_weights")
        return given if isinstance(given, str) else ""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor name in the file -> its shape, without reading the tensors."""
        from safetensors import safe_open

        with safe_open(str(self.path / ADAPTER_WEIGHTS), framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def read_adapter(path: Path) -> Adapter:
    """The adapter in a folder.

    Raises:
        AlignError: a file is missing or is not JSON.
    """
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (path / name).is_file():
            fix = "give the `adapter` folder of an SFT or DPO stage"
            raise AlignError(f"not an adapter: {path} has no {name}", fix=fix)
    record = path / BASE_RECORD
    return Adapter(path, _json(path / ADAPTER_CONFIG), _json(record) if record.is_file() else {})


def check_base(adapter: Adapter, digest: str, where: str) -> None:
    """The base is the one that the adapter was trained on, as far as the adapter tells.

    Raises:
        AlignError: another one.
    """
    if adapter.base and adapter.base["digest"] != digest:
        raise AlignError(
            f"the adapter was trained on another base ({adapter.base['path']})",
            where=where,
            fix="name the checkpoint that the adapter was trained on",
        )


def check_mergeable(adapter: Adapter) -> None:
    """The method's adapter is a change of weights.

    Raises:
        AlignError: it is not; names the method.
    """
    if adapter.kind in _NOT_WEIGHTS:
        raise AlignError(
            f"{_NOT_WEIGHTS[adapter.kind]} cannot be merged: it changes no weights",
            where=str(adapter.path),
            fix="serve it through transformers and PEFT, or train LoRA where a merged checkpoint is needed",
        )
    if adapter.kind in _NEEDS_WHOLE_BASE:
        raise AlignError(
            f"{_NEEDS_WHOLE_BASE[adapter.kind]} cannot be merged: its change is computed from the whole base",
            where=str(adapter.path),
            fix="serve it through transformers and PEFT, or train LoRA where a merged checkpoint is needed",
        )
    replicated = adapter.config.get("layer_replication")
    if replicated:
        raise AlignError(
            f"an adapter with layer_replication {replicated} cannot be merged into its base: layers that "
            "share weights there would get different ones",
            where=str(adapter.path),
            fix="serve it through transformers and PEFT",
        )


def changes_base(adapter: Adapter) -> bool:
    """Whether the initialisation took a part out of the base's weights, as PiSSA does: PEFT does so again
    when it loads the adapter, and the adapter means nothing on the weights as they are."""
    return adapter.initialisation.lower().startswith(_CHANGES_BASE)


def check_plain(adapter: Adapter, what: str) -> None:
    """The adapter is an addition to the base's weights as they are: LoRA, and no initialisation or magnitude
    that depends on them.

    Args:
        what: the operation that needs it, for the message.

    Raises:
        AlignError: not so.
    """
    fix = "convert it to plain LoRA (PEFT: save_pretrained(path_initial_model_for_weight_conversion=...))"
    if adapter.kind != "LORA":
        why, fix = f"{adapter.kind} is not LoRA", "merge it instead"
    elif adapter.config.get("use_dora"):
        why, fix = "DoRA rescales the merged weights by norms that only the base has", "merge it instead"
    elif changes_base(adapter):
        why = f"its initialisation ({adapter.initialisation}) took a part out of the base's weights"
    else:
        return
    raise AlignError(f"{what} takes plain LoRA: {why}", where=str(adapter.path), fix=fix)


def module_of(tensor: str) -> str:
    """The module that a tensor of an adapter's file changes, as the base names it; empty where the tensor
    is a parameter's new value."""
    name = tensor.removeprefix("base_model.model.")
    for mark in (".lora_", ".ia3_", ".hada_", ".lokr_", ".oft_", ".boft_", ".vera_"):
        module, found, _ = name.partition(mark)
        if found:
            return module.replace(
                ".base_layer", ""
            )  # PEFT nests the layers of several parameters of a module
    return ""


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise AlignError(f"{path.name} is not JSON: {error.msg}", where=str(path)) from error
