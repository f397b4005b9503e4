"""Compare the shared row with TRL's two rows on a real batch, before anything is trained.

A wrong position or a mask with a hole moves log-probs by no more than bf16's own noise, but gradients
by their own size. So the check is made in fp32 and looks at both.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch.nn.functional import logsigmoid

from align.errors import AlignError
from align.progress import say
from align.trainers.shared_forward import two_row_inputs

# fp32 rounding stays two orders of magnitude below these, the mistakes they look for above.
_LOGP_TOLERANCE = 1e-3
_GRADIENT_TOLERANCE = 1e-2
# Quantised weights cannot be computed with in fp32; rounding then shows in the gradients.
_QUANTIZED_LOGP_TOLERANCE = 0.5
_QUANTIZED_GRADIENT_TOLERANCE = 0.25
# Free memory for the copy on the model's device, in sizes of its weights: activations come on top.
_ROOM_BESIDE_COPY = 1.5


def check_against_two_rows(model: Any, batch: Mapping[str, Any]) -> None:
    """Forward and backward of the first pairs' preference loss on both paths.

    The loss is -log s(delta - delta'), delta' = delta at this point: DPO's at its start, where policy
    and reference are one model.

    Args:
        model: the model itself, without its PEFT wrapper; `accept_shared_rows` has been called.
        batch: as the collator made it, on the model's device.

    Raises:
        AlignError: the two paths differ; with the numbers.
    """
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    shared = {**batch, "labels": labels}
    for name in ("completion_mask", "ref_chosen_logps", "ref_rejected_logps"):
        shared.pop(name, None)
    separate = two_row_inputs(model, {name: shared[name] for name in shared if name != "shared_row"})
    check_alike(model, shared, separate, _preference_loss)


def check_alike(
    model: Any, shared: Mapping[str, Any], separate: Mapping[str, Any], loss: Callable[[Tensor], Tensor]
) -> None:
    """Forward and backward of a loss over shared rows and over separate ones.

    Weights in fp32 are used as they are. Of 16-bit models a copy is compared in fp32 that has the
    decoder's first layers, one of each kind at least, and its last; on the CPU where it does not fit
    beside the model. Quantised ones are compared in their own dtype.

    Args:
        model: the model itself, without its PEFT wrapper; `accept_shared_rows` has been called.
        shared: the forward's inputs, `shared_row` and `labels` `[B, L]` among them, on the model's device.
        separate: the inputs of the forward over B separate rows, with the same labels.
        loss: of log-probs `[B, L-1]`, 0 where there is no label.

    Raises:
        AlignError: the two paths differ; with the numbers.
    """
    quantized = bool(getattr(model, "is_quantized", False))
    place = model.device
    subject = model
    if not quantized and _dtype(model) != torch.float32:
        place = _place_of_copy(model)
        subject = float_copy(model, place)
    # a row of its own: what the check derives from it must not reach training
    shared = {**shared, "shared_row": shared["shared_row"].to(place)}
    with _evaluating(subject), torch.autocast(place.type, enabled=False):
        ours, theirs = (
            _log_probs_and_gradients(subject, send_to_device(inputs, place), loss, exact=not quantized)
            for inputs in (shared, separate)
        )
    off = float((ours[0] - theirs[0]).abs().max())
    gradient_off = _relative_difference(ours[1], theirs[1])
    limits = (_LOGP_TOLERANCE, _GRADIENT_TOLERANCE)
    if quantized:
        limits = (_QUANTIZED_LOGP_TOLERANCE, _QUANTIZED_GRADIENT_TOLERANCE)
    if not (off <= limits[0] and gradient_off <= limits[1]):
        raise AlignError(
            f"shared rows differ from separate ones on the first rows: log-probs by {off:.2g} (allowed "
            f"{limits[0]:g}), gradients by {gradient_off:.2g} of their size (allowed {limits[1]:g})",
            where=f"model_type {model.config.model_type}",
            fix="set sharing: off, and report this model",
        )


def _log_probs_and_gradients(
    model: Any, inputs: Mapping[str, Any], loss: Callable[[Tensor], Tensor], exact: bool
) -> tuple[Tensor, list[Tensor | None]]:
    """Per-token log-probs and the loss's gradients; `exact` computes on inputs in fp32."""
    given = {name: _as_float(value) if exact else value for name, value in inputs.items()}
    given["use_cache"] = False
    log_probs = model(**given, fused_lm_head=True).log_probs
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss(log_probs), trained, allow_unused=True)
    return log_probs.detach(), list(gradients)


def _preference_loss(log_probs: Tensor) -> Tensor:
    chosen, rejected = log_probs.sum(1).chunk(2)
    delta = chosen - rejected
    return -logsigmoid(delta - delta.detach()).mean()


def _relative_difference(ours: list[Tensor | None], theirs: list[Tensor | None]) -> float:
    """|a - b| / |b| over all gradients as one vector; a missing gradient is zero."""
    squared = size = 0.0
    for mine, wanted in zip(ours, theirs, strict=True):
        if mine is None and wanted is None:
            continue
        zero = torch.zeros_like(mine if mine is not None else wanted)  # pyright: ignore[reportArgumentType]
        a, b = (zero if g is None else g for g in (mine, wanted))
        squared += float((a.double() - b.double()).square().sum())
        size += float(b.double().square().sum())
    return (squared / size) ** 0.5 if size else float(squared > 0)


def float_copy(model: Any, device: torch.device) -> Any:
    """A copy in fp32 with those of the decoder's layers that are compared.

    Each weight is converted on its way to `device`, so nothing is there twice.
    """
    decoder = model.get_decoder()
    layers = decoder.layers
    decoder.layers = torch.nn.ModuleList([layers[number] for number in compared_layers(decoder)])
    try:
        return copy.deepcopy(model, _weights_elsewhere(model, device))
    finally:
        decoder.layers = layers


def _weights_elsewhere(model: Any, device: torch.device) -> dict[int, Any]:
    """What `copy.deepcopy` shall take for each weight and buffer, by its id."""
    copies: dict[int, Any] = {
        id(weight): torch.nn.Parameter(
            _as_float(weight.detach().clone()).to(device), requires_grad=weight.requires_grad
        )
        for weight in model.parameters()
    }
    return copies | {id(buffer): _as_float(buffer.clone()).to(device) for buffer in model.buffers()}


def _place_of_copy(model: Any) -> torch.device:
    """The model's own device, or the CPU where the copy and its activations would not fit there.

    FlexAttention has no backward pass on a CPU, so that it is compared where the model is.
    """
    here: torch.device = model.device
    if here.type != "cuda" or model.get_decoder().config._attn_implementation.endswith("flex"):
        return here
    free, _ = torch.cuda.mem_get_info(here)
    if free > _ROOM_BESIDE_COPY * compared_bytes(model):
        return here
    say("  the first rows are compared on the CPU: beside the model there is no room for a copy in fp32")
    return torch.device("cpu")


def compared_bytes(model: Any) -> int:
    """Bytes of `float_copy`'s weights."""
    decoder: Any = model.get_decoder()
    rest = set(range(len(decoder.layers))) - set(compared_layers(decoder))
    left_out = {id(parameter) for number in rest for parameter in decoder.layers[number].parameters()}
    return 4 * sum(p.numel() for p in model.parameters() if id(p) not in left_out)


def compared_layers(decoder: Any) -> list[int]:
    """The decoder's layers that the copy in fp32 has: the first ones, of each kind one, and the last.

    The last is computed in a way of its own (`align.trainers.last_layer`). Where later layers read keys and
    values of earlier ones (Gemma 4), those are there too. Each stands where the decoder has a layer
    of its kind, since models look masks up by a layer's place.
    """
    count = len(decoder.layers)
    kinds = getattr(decoder.config, "layer_types", None) or ["full_attention"] * count
    found = list(range(min(max(1, *(kinds.index(kind) for kind in set(kinds))), count - 1)))
    for layer in [*_read_by_others(decoder), count - 1]:
        if layer in found:
            continue
        while len(found) < count and kinds[len(found)] != kinds[layer]:
            found.append(len(found))
        found.append(layer)
    return found if len(found) < count else list(range(count))


def _read_by_others(decoder: Any) -> list[int]:
    """Layers whose keys and values later layers read, by the name that transformers gives this."""
    attentions = [getattr(layer, "self_attn", None) for layer in decoder.layers]
    return [n for n, one in enumerate(attentions) if getattr(one, "store_full_length_kv", False)]


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Without dropout, checkpointing or traces: modes and random state are as before afterwards."""
    training = {module: module.training for module in model.modules()}
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        model.eval()
        try:
            yield
        finally:
            for module, mode in training.items():
                module.training = mode


def _dtype(model: Any) -> torch.dtype:
    """Of the frozen weights; of all where none is frozen."""
    frozen = [parameter.dtype for parameter in model.parameters() if not parameter.requires_grad]
    return frozen[0] if frozen else next(model.parameters()).dtype


def _as_float(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
