"""Shared rows: the layout by hand, and attention equal to that of separate sequences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from align.trainers.attention import Method, shared_row_attention
from align.trainers.shared_row import Branch, Group, SharedRow, pack

A, B, C, D, E, F, G, H, J, K, L = range(11)
BY_HAND = [Group([A, B, C], [Branch([D, E]), Branch([F])]), Group([G, H], [Branch([J]), Branch([K, L])])]


def test_layout_by_hand() -> None:
    row = pack(BY_HAND)
    assert row.input_ids.tolist() == [[A, B, C, D, E, F, G, H, J, K, L]]
    assert row.index.tolist() == [[0, 1, 2, 3, 4, 3, 0, 1, 2, 2, 3]]
    assert row.branch.tolist() == [0, 0, 0, 1, 1, 2, 0, 0, 1, 2, 2]
    assert row.targets.tolist() == [D, E, F, J, K, L]
    assert row.input_ids[0, row.predictors].tolist() == [C, D, C, H, H, K]
    assert row.sequence.tolist() == [0, 0, 1, 2, 3, 3]
    assert row.place.tolist() == [3, 4, 3, 2, 2, 3]
    assert row.num_sequences == 4


def test_only_scored_tokens_and_no_prefix() -> None:
    groups = [Group([], [Branch([A, B]), Branch([C, D], scored=[True, False])]), Group([E], [Branch([])])]
    row = pack(groups)
    assert row.targets.tolist() == [B]  # A and C have no predictor, D is not wanted
    assert row.num_sequences == 3
    with pytest.raises(ValueError, match="scored"):
        pack([Group([A], [Branch([B], scored=[])])])


def test_mask_by_hand() -> None:
    row = pack([Group([A, B, C], [Branch([D]), Branch([E])], blocks=[-1, 0, 0])])
    assert row.mask(0, None).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0],  # B sees C: one image
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 0, 1],
    ]
    assert row.mask(0, 2).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 0, 1],
    ]


BLOCKS = [-1] * 3 + [0] * 6 + [1] * 6 + [-1] * 5
GROUPS = {
    "ragged": [Group(range(40), [Branch(range(9)), Branch(range(30))]), Group(range(7), [Branch([1])] * 2)],
    "many short branches": [Group(range(50), [Branch(range(4))] * 6)],
    "long branches": [Group(range(5), [Branch(range(40)), Branch(range(50))])],
    "no prefix, empty branch": [Group([], [Branch(range(6)), Branch(range(3))]), Group([1, 2], [Branch([])])],
    "image blocks": [
        Group(range(20), [Branch(range(8))] * 2, blocks=[-1] * 3 + [0] * 6 + [1] * 6 + [-1] * 5)
    ],
}


@pytest.mark.parametrize("method", ["dense", "split", "auto"])
@pytest.mark.parametrize("window", [None, 4, 25])
@pytest.mark.parametrize("name", GROUPS)
def test_attention_and_gradients_equal_separate_sequences(
    name: str, window: int | None, method: Method
) -> None:
    row = pack(GROUPS[name])
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, heads, len(row), 8, requires_grad=True) for heads in (4, 2, 2))
    module = torch.nn.Module()
    module.num_key_value_groups = 2  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    weight = torch.randn(1, len(row), 4, 8)
    ours, _ = shared_row_attention(
        module, q, k, v, None, scaling=0.3, sliding_window=window, shared_row=row, method=method
    )
    theirs = _separately(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1), row, window)
    assert torch.allclose(ours, theirs, atol=1e-6)
    ours, theirs = (
        torch.autograd.grad((out * weight).sum(), (q, k, v), retain_graph=True) for out in (ours, theirs)
    )
    for mine, wanted in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, wanted, atol=1e-5)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("name", GROUPS)
def test_flex_attention_equals_separate_sequences(name: str, window: int | None) -> None:
    """Forward only: FlexAttention has no backward on a CPU."""
    row = pack(GROUPS[name])
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, heads, len(row), 16) for heads in (4, 2, 2))
    ours, _ = shared_row_attention(
        torch.nn.Module(), q, k, v, None, scaling=0.3, sliding_window=window, shared_row=row, method="flex"
    )
    theirs = _separately(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1), row, window)
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert len(row.memo) == 1  # the plan of blocks is there for the next layer


def _separately(q: Tensor, k: Tensor, v: Tensor, row: SharedRow, window: int | None) -> Tensor:
    """Each sequence by itself with a mask made from its places alone; prefixes from the first branch."""
    out = torch.zeros(1, len(row), q.shape[1], q.shape[3])
    for span in row.spans:
        prefix = list(range(span.start, span.start + span.prefix))
        start = span.start + span.prefix
        for number, length in enumerate(span.branches):
            columns = prefix + list(range(start, start + length))
            start += length
            place = torch.arange(len(columns))
            seen = place[None] <= place[:, None]
            if row.blocks is not None:
                block = row.blocks[columns]
                seen |= (block[None] == block[:, None]) & (block[None] >= 0)
            if window is not None:
                seen &= place[None] > place[:, None] - window
            attended = scaled_dot_product_attention(
                q[:, :, columns], k[:, :, columns], v[:, :, columns], attn_mask=seen, scale=0.3
            ).transpose(1, 2)
            kept = columns if number == 0 else columns[len(prefix) :]
            out = out.index_copy(
                1, torch.tensor(kept, dtype=torch.long), attended[:, -len(kept) or len(columns) :]
            )
    return out


def test_a_scored_prefix_belongs_to_its_only_branch() -> None:
    """a b [c] d | e [f] with c and f scored: c is predicted by b, f by e; only `a` is read by nobody."""
    row = pack([Group([1, 2, 3, 4], [Branch([5, 6], [False, True])], scored=[False, False, True, False])])
    assert row.predictors.tolist() == [1, 4]
    assert row.targets.tolist() == [3, 6]
    assert row.place.tolist() == [2, 5]
    assert row.sequence.tolist() == [0, 0]
    assert row.tail().tolist() == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="several branches"):
        pack([Group([1, 2], [Branch([3]), Branch([4])], scored=[False, True])])
