"""Which weights a quantised training saw: those of the base, rounded to 4 or 8 bits and back.

QLoRA trains an adapter on top of Q(W), not of W. Q(W) + BA is therefore the model that was trained, that its
loss was measured on, and that a DPO stage's pairs came from; W + BA is a model that nobody has seen, off by
the rounding W - Q(W), which the adapter has learnt to live with. So the adapter is merged into Q(W), held in
16 bits: no second rounding to 4 bits, no bitsandbytes where the result is served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from align.errors import AlignError
from align.models.loading import not_quantized
from align.models.proposal import checked_modules

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def as_trained(weight: torch.Tensor, quantization: str, transposed: bool = False) -> torch.Tensor:
    """A weight as the quantised training multiplied by it: same shape and dtype.

    Args:
        weight: [out, in], or [in, out] when `transposed`, in the dtype that the base was loaded in.
        quantization: nf4 (blocks of 64, double quantisation, as `model.quantization` sets it) or int8
            (a scale a row).

    Raises:
        AlignError: bitsandbytes is not installed.
    """
    try:
        from bitsandbytes import functional
    except ImportError as error:
        fix = "pip install bitsandbytes, or merge into the original weights (merge_into: original)"
        raise AlignError("bitsandbytes is not installed", fix=fix) from error
    if transposed:
        return as_trained(weight.T, quantization).T.contiguous()
    if quantization == "nf4":
        packed, state = functional.quantize_4bit(
            weight.contiguous(), compress_statistics=True, quant_type="nf4"
        )
        return functional.dequantize_4bit(packed, state).to(weight.dtype)
    rounded, scale, _ = functional.int8_vectorwise_quant(weight.half().contiguous())
    return functional.int8_vectorwise_dequant(rounded, scale).to(weight.dtype)


def quantized_weights(model: PreTrainedModel, quantization: str) -> dict[str, bool]:
    """The parameters that `model.quantization` rounds, those of the language model's linear layers, and
    whether they are stored transposed (GPT-2's are, and are rounded the right way round)."""
    import torch
    from transformers.pytorch_utils import Conv1D

    if quantization == "none":
        return {}
    modules = checked_modules(model.config)
    skipped = not_quantized(model.config.model_type, model.config)
    return {
        f"{name}.weight": isinstance(module, Conv1D)
        for name, module in model.named_modules()
        if (type(module) is torch.nn.Linear or isinstance(module, Conv1D))
        and modules.component_of(name) in ("language", "cross_attention")
        and not any(f".{part}." in f".{name}." for part in skipped)
    }


def round_base(model: Any, quantization: str, dtype: torch.dtype) -> int:
    """Round a loaded model's weights in place as the training's were; returns how many.

    Args:
        dtype: what the training loaded the base in, before it was quantised.
    """
    import torch

    names = quantized_weights(model, quantization)
    with torch.no_grad():
        for name, transposed in sorted(names.items()):
            parameter = model.get_parameter(name)
            parameter.copy_(as_trained(parameter.to(dtype), quantization, transposed))
    return len(names)
