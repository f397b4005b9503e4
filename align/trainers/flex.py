"""Attention over shared rows as one FlexAttention call: PyTorch's kernel that skips what a mask leaves empty.

On a GPU the compiled kernel reads only the blocks of scores that a token can see, so all groups of a
row go in one call without a mask in memory. The plan of blocks is made once a row and serves every
layer and the reference's forward. Not chosen by `auto`: compared with the dense way in values, its speed
was not measured, as FlexAttention trains on GPUs only.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from align.trainers.shared_row import SharedRow


def flex_shared_row(
    query: Tensor, key: Tensor, value: Tensor, row: SharedRow, window: int | None, scaling: float | None
) -> Tensor:
    """Attention of a whole row, `[1, H, N, D]`; `key` and `value` may have fewer heads than `query`.

    Raises:
        NotImplementedError: a backward pass on a CPU, which FlexAttention does not have.
    """
    grouped = query.shape[1] != key.shape[1]
    attend = _compiled() if query.is_cuda else flex_attention
    output = attend(query, key, value, block_mask=block_mask(row, window), scale=scaling, enable_gqa=grouped)
    assert isinstance(output, Tensor)
    return output


def block_mask(row: SharedRow, window: int | None) -> BlockMask:
    """`SharedRow.mask` of all groups at once, block by block; kept with the row."""
    memo = ("flex", window)
    if memo not in row.memo:
        row.memo[memo] = _block_mask(row, window)
    return row.memo[memo]


def _block_mask(row: SharedRow, window: int | None) -> BlockMask:
    device, length = row.input_ids.device, len(row)
    index, branch, blocks = row.index[0], row.branch, row.blocks
    lengths = torch.tensor([span.length for span in row.spans], device=device)
    group = torch.repeat_interleave(torch.arange(len(row.spans), device=device), lengths)

    def seen(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        found = ((branch[k] == 0) | (branch[k] == branch[q])) & (index[k] <= index[q])
        if blocks is not None:
            found = found | ((blocks[k] == blocks[q]) & (blocks[q] >= 0))
        if window is not None:
            found = found & (index[k] > index[q] - window)
        return found & (group[q] == group[k])

    return create_block_mask(seen, None, None, length, length, device=str(device))


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=True)
