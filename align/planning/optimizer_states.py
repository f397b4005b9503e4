"""Bytes of an optimizer's states, by its library's rules: they are made at the first step and stay."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from align.errors import AlignError

_BLOCK_8BIT, _LEAST_8BIT = 256, 4096
_LEAST_PAGED = 100_000


def optimizer_bytes(parameters: Sequence[Tensor], optim: str) -> tuple[int, int]:
    """Bytes of the optimizer's states, and of those the bytes that may leave the GPU.

    AdamW keeps two moments in the parameter's dtype. bitsandbytes' 8-bit AdamW keeps a byte a moment and
    one float a block of 256, but floats for tensors below 4,096 elements; its 32-bit one keeps floats.
    Paged, states of tensors of 100,000 elements and more may be moved to the host (bitsandbytes 0.50,
    `optim/optimizer.py`). SGD without momentum keeps nothing.

    Raises:
        AlignError: an optimizer whose states are not known here.
    """
    paged = optim.startswith("paged_")
    name = optim.removeprefix("paged_")
    known = {
        "adamw_torch",
        "adamw_torch_fused",
        "adamw_8bit",
        "adamw_bnb_8bit",
        "adamw_32bit",
        "adamw",
        "sgd",
    }
    if name not in known:
        raise AlignError(f"trainer.optim {optim!r}: its states are not known", where="align plan")
    total = pageable = 0
    for parameter in parameters:
        size = _state_bytes(parameter, name, paged)
        total += size
        pageable += size if paged and parameter.numel() >= _LEAST_PAGED else 0
    return total, pageable


def _state_bytes(parameter: Tensor, name: str, paged: bool) -> int:
    count = parameter.numel()
    if name == "sgd":
        return 0
    if name.endswith("8bit") and count >= _LEAST_8BIT:
        return 2 * (count + 4 * -(-count // _BLOCK_8BIT))
    if name.startswith("adamw_torch"):
        return 2 * count * parameter.element_size()
    return 2 * count * 4
