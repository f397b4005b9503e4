"""The order of rows: every row once, a picture's rows in one batch, the same after a resume."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from align.trainers.image_sampler import SharedImageSampler


def _batches(sampler: SharedImageSampler, size: int) -> list[list[int]]:
    rows = list(sampler)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _pictures(batches: list[list[int]], keys: Sequence[Hashable]) -> int:
    """How many pictures are read in all: a torn one counts in each of its batches."""
    return sum(len({keys[row] for row in batch}) for batch in batches)


def test_every_row_once_and_whole_groups_where_they_fit() -> None:
    keys = [number // 5 for number in range(50)] + [100 + number // 3 for number in range(12)]
    sampler = SharedImageSampler(keys, batch_size=8, seed=0)
    batches = _batches(sampler, 8)
    assert sorted(row for batch in batches for row in batch) == list(range(62))
    assert len(sampler) == 62
    # 14 pictures; 5 + 3 fill a batch four times, then the fives that are left tear each other
    assert _pictures(batches[:4], keys) == 8
    assert _pictures(batches, keys) <= 14 + 4


def test_rows_without_a_key_share_nothing() -> None:
    batches = _batches(SharedImageSampler([None, None, "a", None, "a"], batch_size=2, seed=1), 2)
    assert [2, 4] in [sorted(batch) for batch in batches]
    assert sorted(row for batch in batches for row in batch) == [0, 1, 2, 3, 4]


def test_a_group_larger_than_a_batch_is_torn_once_a_batch() -> None:
    keys = ["a"] * 10
    assert [len(batch) for batch in _batches(SharedImageSampler(keys, 4, seed=0), 4)] == [4, 4, 2]


def test_the_order_is_the_seed_and_the_epoch() -> None:
    keys = [number // 4 for number in range(40)]
    first, again, other = (SharedImageSampler(keys, 8, seed) for seed in (3, 3, 4))
    assert list(first) == list(again) != list(other)
    before = list(first)
    first.set_epoch(1)
    assert list(first) != before
    again.set_epoch(1)
    assert list(first) == list(again)
