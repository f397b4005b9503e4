"""Attention over shared rows, behind transformers' attention interface.

`use_shared_rows(model)` gives a decoder the attention named `ATTENTION`. Called with a
`shared_row=SharedRow` keyword (the model's forward hands it down to every layer) it attends inside
each group as `SharedRow.mask` says; called without, it is transformers' SDPA, masks and all.

Three ways that compute the same:

- `dense`: one SDPA call a group with the whole mask. (P + sum C)^2 scores, P prefix tokens, C a branch.
- `split`: the prefix causally with itself, which kernels do in half the time, then the branches
  against prefix and themselves. About P^2/2 + sum C (P + C) scores. The branches go in one masked
  call where little is wasted on each other's tokens, else one by one.

- `flex`: all groups in one FlexAttention call, see `align.trainers.flex`. For GPUs; never chosen by `auto`.

`split` won in every shape but the smallest (below about 300 tokens a group) when measured in fp32 on
a CPU; it and `dense` ran on CPU only.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from align.trainers.flex import flex_shared_row
from align.trainers.last_layer import reads_tail
from align.trainers.shared_row import SharedRow

Method = Literal["auto", "dense", "split", "flex"]

ATTENTION = "align_shared_row"
_SMALL_GROUP = 300
_MASKED_WASTE = 1.3


def use_shared_rows(model: PreTrainedModel, method: Method = "auto") -> None:
    """Make the model's decoder understand `shared_row`; the vision tower keeps its attention.

    Args:
        model: a causal language model or a vision-language model whose decoder uses SDPA.
        method: which of the ways; `auto` chooses between `dense` and `split` by the group's length.

    Raises:
        ValueError: the decoder does not take its attention from transformers' interface.
    """
    name = ATTENTION if method == "auto" else f"{ATTENTION}_{method}"
    decoder = model.get_decoder()
    decoder.set_attn_implementation(name)
    if decoder.config._attn_implementation != name:
        raise ValueError(f"{type(decoder).__name__} does not let its attention be set")


def shared_row_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    shared_row: SharedRow | None = None,
    method: Method = "auto",
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one decoder layer.

    Args:
        module: the attention layer; tells how many query heads share a key head.
        query: `[1, H, N, D]`.
        key, value: `[1, H_kv, N, D]`.
        attention_mask: only for the way without `shared_row`.
        dropout: must be 0 with `shared_row`.
        scaling: of the scores; None is 1/sqrt(D).
        sliding_window: keys further back than this many tokens of the sequence are not seen.
        shared_row: what the row's columns are.
        method: see the module.
        kwargs: handed on to SDPA without `shared_row`.

    Returns:
        `[1, N, H, D]` and no weights.
    """
    if shared_row is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if method == "flex":
        return flex_shared_row(query, key, value, shared_row, sliding_window, scaling).transpose(1, 2), None
    heads = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, heads), repeat_kv(value, heads)
    lengths = [span.length for span in shared_row.spans]
    pieces: list[Tensor] = []
    parts = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    for number, (q, k, v) in enumerate(parts):
        small = lengths[number] < _SMALL_GROUP
        unread = shared_row.spans[number].unread if reads_tail(module) else 0
        if unread:
            pieces.append(torch.zeros_like(q[:, :, :unread]))
        if method == "dense" or (method == "auto" and small):
            bias = shared_row.bias(number, sliding_window, q.dtype)[unread:]
            q = q[:, :, unread:]
            pieces.append(scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scaling))
        else:
            pieces.extend(_split(q, k, v, shared_row, number, sliding_window, scaling, unread))
    return torch.cat([piece.transpose(1, 2) for piece in pieces], dim=1), None


def _split(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    row: SharedRow,
    number: int,
    window: int | None,
    scaling: float | None,
    unread: int,
) -> list[Tensor]:
    """Prefix, from query `unread` on, then branches of one group; `[1, H, n, D]` of the group's n tokens."""
    span = row.spans[number]
    prefix = span.prefix
    bias = row.bias(number, window, q.dtype)
    own, answers = q.split([prefix, span.answers], 2)
    pieces = []
    if prefix:
        keys, values, own = k[:, :, :prefix], v[:, :, :prefix], own[:, :, unread:]
        if not unread and row.is_plain(number, window):
            pieces.append(scaled_dot_product_attention(own, keys, values, is_causal=True, scale=scaling))
        else:
            mask = bias[unread:prefix, :prefix]
            pieces.append(scaled_dot_product_attention(own, keys, values, attn_mask=mask, scale=scaling))
    if not span.answers:
        return pieces
    together = span.answers * span.length
    apart = sum(length * (prefix + length) for length in span.branches)
    if together <= _MASKED_WASTE * apart:
        mask = bias[prefix:]
        return [*pieces, scaled_dot_product_attention(answers, k, v, attn_mask=mask, scale=scaling)]
    return [*pieces, *_branch_by_branch(answers, k, v, span.branches, bias, prefix, scaling)]


def _branch_by_branch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    branches: tuple[int, ...],
    bias: Tensor,
    prefix: int,
    scaling: float | None,
) -> list[Tensor]:
    keys, values = k.split([prefix, *branches], 2), v.split([prefix, *branches], 2)
    pieces, start = [], prefix
    for number, query in enumerate(q.split(list(branches), 2), start=1):
        stop = start + query.shape[2]
        mask = torch.cat([bias[start:stop, :prefix], bias[start:stop, start:stop]], dim=1)
        pieces.append(
            scaled_dot_product_attention(
                query,
                torch.cat([keys[0], keys[number]], 2),
                torch.cat([values[0], values[number]], 2),
                attn_mask=mask,
                scale=scaling,
            )
        )
        start = stop
    return pieces


def _dense(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    return shared_row_attention(*args, method="dense", **kwargs)


def _flex(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    return shared_row_attention(*args, method="flex", **kwargs)


def _always_split(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    return shared_row_attention(*args, method="split", **kwargs)


for _name, _attention in (
    (ATTENTION, shared_row_attention),
    (f"{ATTENTION}_dense", _dense),
    (f"{ATTENTION}_split", _always_split),
    (f"{ATTENTION}_flex", _flex),
):
    AttentionInterface.register(_name, _attention)
    AttentionMaskInterface.register(_name, sdpa_mask)
