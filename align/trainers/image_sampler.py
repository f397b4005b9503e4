"""The order in which rows are read so that those of one picture land in one batch."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import islice

import torch
from torch.utils.data import Sampler

_LOOKAHEAD = 64


class SharedImageSampler(Sampler[int]):
    """Every row once, rows with the same key side by side, keys and rows within a key shuffled.

    Where the next key's rows would be torn apart by the end of a batch, one of the following keys
    that fits is taken first; a key is torn only when none fits. The order depends on seed and epoch
    alone, so a run that resumes within an epoch sees the rows that an undisturbed one sees.

    Args:
        keys: per row, what tells its images; None for a row that shares nothing.
        batch_size: rows that are collated together.
        seed: with the epoch's number, seeds the shuffling.

    Worked example, batches of 4, rows a0 a1 a2 b3 b4 c5 c6 d7, seed 0:

        a0 a2 a1 d7 | b4 b3 c6 c5
    """

    def __init__(self, keys: Sequence[Hashable | None], batch_size: int, seed: int) -> None:
        self._groups: list[list[int]] = []
        by_key: dict[Hashable, list[int]] = {}
        for row, key in enumerate(keys):
            if key is None or key not in by_key:
                self._groups.append([row])
                if key is not None:
                    by_key[key] = self._groups[-1]
            else:
                by_key[key].append(row)
        self._batch_size = batch_size
        self._seed = seed
        self._num_rows = len(keys)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Order the next pass by this epoch's number; transformers' Trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._num_rows

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self.epoch)
        order = torch.randperm(len(self._groups), generator=generator).tolist()
        later = iter([self._groups[number] for number in order])
        near = list(islice(later, _LOOKAHEAD))
        free = self._batch_size
        while near:
            group = near.pop(next((n for n, rows in enumerate(near) if len(rows) <= free), 0))
            near.extend(islice(later, 1))
            yield from (group[row] for row in torch.randperm(len(group), generator=generator).tolist())
            free = (free - len(group)) % self._batch_size or self._batch_size
