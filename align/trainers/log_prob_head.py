"""Log-probs of chosen tokens under a frozen LM head, without logits of all tokens at once.

TRL's fused head is a Triton kernel on GPUs; elsewhere it works on tiles of 4096 tokens in plain torch,
several passes over tensors that fit no cache, and projects a second time in the backward. This one
takes tiles small enough for the cache, and makes the gradient in the forward: for one token with
logits z = W h and target y,

    d log p(y) / d h = W_y - sum_v softmax(z)_v W_v

needs nothing of the loss but a factor, so the backward is one multiplication. Only for a head that
does not train, and for losses that take no gradient of the entropy: TRL's DPO losses are such.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

# Logits of a tile: 2^21 floats are 8 MB.
_TILE = 1 << 21


class Scores(NamedTuple):
    """Per token `[T]`, float32; names as in TRL's `FusedCausalLMOutput`, None where not wanted.

    Only `log_probs` has a gradient. `is_top1` is bool: whether the target is the first of the largest.
    """

    log_probs: Tensor
    entropy: Tensor | None
    log_sum_sq_probs: Tensor | None
    mean_logits: Tensor | None
    is_top1: Tensor | None


def score(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, with_statistics: bool
) -> Scores:
    """Score `targets` `[T]` after the hidden states `[T, H]` under the head `[V, H]`.

    Args:
        with_statistics: whether the fields beside `log_probs` are wanted.

    Raises:
        ValueError: the head trains.
    """
    if weight.requires_grad or (bias is not None and bias.requires_grad):
        raise ValueError("the LM head trains: its gradient is not computed here")
    return Scores(*_LogProbs.apply(hidden, weight, bias, targets, with_statistics))


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, with_statistics: bool
    ) -> tuple[Tensor | None, ...]:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        count, size = hidden.shape[0], weight.shape[0]
        needs_gradient = ctx.needs_input_grad[0]
        gradient = hidden.new_empty(hidden.shape, dtype=torch.float32) if needs_gradient else None
        out = torch.empty(5, count, dtype=torch.float32, device=hidden.device)
        columns, weight = weight.to(dtype).t(), weight.to(dtype)
        step = max(1, _TILE // size)
        for start in range(0, count, step):
            rows = slice(start, min(start + step, count))
            logits = (hidden[rows].to(dtype) @ columns).float()
            if bias is not None:
                logits += bias.float()
            target = targets[rows, None]
            normaliser = logits.logsumexp(1, keepdim=True)
            out[0, rows] = (logits.gather(1, target) - normaliser)[:, 0]
            if with_statistics:
                out[3, rows] = logits.mean(1)
                out[4, rows] = (logits.argmax(1) == targets[rows]).float()
            if not (with_statistics or gradient is not None):
                continue
            probs = torch.exp(logits - normaliser)
            if with_statistics:
                out[1, rows] = normaliser[:, 0] - torch.linalg.vecdot(probs, logits)
                out[2, rows] = torch.linalg.vecdot(probs, probs).log()
            if gradient is not None:
                expected = probs.to(dtype) @ weight
                gradient[rows] = weight[target[:, 0]].float() - expected.float()
        ctx.save_for_backward(gradient)
        ctx.dtype = hidden.dtype
        statistics: tuple[Tensor | None, ...] = (None,) * 4
        if with_statistics:
            statistics = (out[1], out[2], out[3], out[4].bool())
            ctx.mark_non_differentiable(*statistics)
        ctx.set_materialize_grads(False)
        return out[0], *statistics

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        if gradients[0] is None or gradient is None:
            return None, None, None, None, None
        return (gradients[0][:, None] * gradient).to(ctx.dtype), None, None, None, None
