"""One row for sequences that begin alike: `[prefix | branch 1 | ... | branch N]`.

The two answers of a preference pair share prompt and image; the questions about one picture share
the picture. Written one after the other behind a single prefix, each branch sees the prefix and
itself, and the row computes what N separate sequences would, with the prefix computed once.
Groups stand one behind the other in one row without padding: `N` is the number of real tokens.

    groups  (P=3: a b c; branches: d e / f) and (P=2: g h; branches: i / j k)
    input   a b c d e f g h i j k
    index   0 1 2 3 4 3 0 1 2 2 3      the token's place in its own sequence
    branch  0 0 0 1 1 2 0 0 1 1 2 -> numbered in its group, 0 is the prefix
    scored  d<-c  e<-d  f<-c  i<-h  j<-h  k<-j     target <- the position that predicts it

The last token of the prefix predicts the first token of every branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Branch:
    """What follows the prefix in one of the sequences.

    Attributes:
        ids: its token ids.
        scored: per token, whether its log-probability is wanted; None wants all.
    """

    ids: Sequence[int]
    scored: Sequence[bool] | None = None


@dataclass(frozen=True)
class Group:
    """A prefix and the branches that share it.

    Attributes:
        prefix: token ids; may be empty, then a branch's first token has no predictor and is not scored.
        branches: at least one.
        blocks: per prefix token, the number of the image whose tokens see each other in both
            directions, -1 for causal tokens; None when the model has no such blocks.
        modality: per prefix token 0 for text, 1 for image, 2 for video; for models whose positions
            depend on it, None for others. Branches are text.
        scored: per prefix token, whether its log-probability is wanted; None wants none. Only with a single
            branch, whose sequence the tokens belong to: a conversation that shows a picture after an answer
            has that answer in its prefix.
    """

    prefix: Sequence[int]
    branches: Sequence[Branch]
    blocks: Sequence[int] | None = None
    modality: Sequence[int] | None = None
    scored: Sequence[bool] | None = None


@dataclass(frozen=True)
class Span:
    """Where a group stands in the row: `start`, then `prefix` tokens, then the branches' lengths.

    Attributes:
        unread: how many tokens the prefix begins with whose last hidden state predicts nothing scored.
    """

    start: int
    prefix: int
    branches: tuple[int, ...]
    unread: int

    @property
    def answers(self) -> int:
        """Tokens in all branches."""
        return sum(self.branches)

    @property
    def length(self) -> int:
        """Tokens of the group."""
        return self.prefix + self.answers

    @property
    def stop(self) -> int:
        """First column after the group."""
        return self.start + self.length


@dataclass(frozen=True)
class SharedRow:
    """Groups packed into one row of N tokens, T of them scored, S sequences in all.

    Attributes:
        spans: the groups' places, in order.
        input_ids: `[1, N]`.
        index: `[1, N]` place of the token in its own sequence; the position id of models with
            one-dimensional positions, and the distance that sliding windows are measured in.
        branch: `[N]` 0 for prefix tokens, n for the n-th branch of the group.
        blocks: `[N]` number of the bidirectional image block, -1 outside; None without any.
        modality: `[N]` as in `Group`; None without any.
        predictors: `[T]` columns whose hidden state predicts a scored token.
        targets: `[T]` the scored tokens' ids.
        sequence: `[T]` the scored token's sequence, branches of all groups counted through.
        place: `[T]` the scored token's place in its sequence (its `index`).
        num_sequences: S.
        batch_rows: `[S]` which row of the batch's arrays a sequence is.
        images: per group, the digests of its images, for a store's keys; None where none is used.
        memo: what has been derived from the row: masks, and the features of its images.
    """

    spans: tuple[Span, ...]
    input_ids: Tensor
    index: Tensor
    branch: Tensor
    blocks: Tensor | None
    modality: Tensor | None
    predictors: Tensor
    targets: Tensor
    sequence: Tensor
    place: Tensor
    num_sequences: int
    batch_rows: Tensor
    images: tuple[tuple[str, ...], ...] | None = None
    memo: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return self.input_ids.shape[1]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SharedRow:
        """The row on another device; `accelerate` calls this for what a batch holds."""
        moved = {
            name: value.to(device, non_blocking=non_blocking)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved, memo={})

    def tail(self) -> Tensor:
        """Columns `[n]`, ascending, of all but the unread tokens that the prefixes begin with."""
        if "tail" not in self.memo:
            device = self.input_ids.device
            columns = [
                torch.arange(span.start + span.unread, span.stop, device=device) for span in self.spans
            ]
            self.memo["tail"] = torch.cat(columns)
        return self.memo["tail"]

    def mask(self, number: int, window: int | None) -> Tensor:
        """Who sees whom inside group `number`: `[n, n]` bool, True where the query (row) sees the key.

        A key is seen if it comes no later in the query's own sequence, prefix included, or stands in
        the same image block; and if it lies within the last `window` tokens. Every token sees itself.
        """
        key = ("mask", number, window)
        if key not in self.memo:
            self.memo[key] = self._mask(self.spans[number], window)
        return self.memo[key]

    def bias(self, number: int, window: int | None, dtype: torch.dtype) -> Tensor:
        """`mask` as an additive term `[n, n]` of `dtype`: 0 where seen, -inf elsewhere."""
        key = ("bias", number, window, dtype)
        if key not in self.memo:
            seen = self.mask(number, window)
            zero = torch.zeros((), dtype=dtype, device=seen.device)
            self.memo[key] = torch.where(seen, zero, float("-inf"))
        return self.memo[key]

    def is_plain(self, number: int, window: int | None) -> bool:
        """Whether the group's prefix is plainly causal: no image block, nothing out of the window."""
        span = self.spans[number]
        if window is not None and window < span.prefix:
            return False
        key = ("plain", number)
        if key not in self.memo:
            blocks = None if self.blocks is None else self.blocks[span.start : span.start + span.prefix]
            self.memo[key] = torch.tensor(blocks is None or not bool((blocks >= 0).any()))
        return bool(self.memo[key])

    def _mask(self, span: Span, window: int | None) -> Tensor:
        columns = slice(span.start, span.stop)
        index, branch = self.index[0, columns], self.branch[columns]
        own = (branch[None, :] == 0) | (branch[None, :] == branch[:, None])
        seen = own & (index[None, :] <= index[:, None])
        if self.blocks is not None:
            block = self.blocks[columns]
            seen |= (block[None, :] == block[:, None]) & (block[:, None] >= 0)
        if window is not None:
            seen &= index[None, :] > index[:, None] - window
        return seen


def pack(
    groups: Sequence[Group],
    images: Sequence[tuple[str, ...]] | None = None,
    batch_rows: Sequence[int] | None = None,
) -> SharedRow:
    """Write the groups one behind the other and note what each column is.

    Args:
        groups: at least one.
        images: per group the digests of its images.
        batch_rows: per sequence its row in the batch's arrays; None where both are in one order.

    Raises:
        ValueError: no group, a group without branches or without tokens, `scored`, `blocks` or
            `modality` of another length than the tokens they speak of, a scored prefix of several branches.
    """
    if not groups:
        raise ValueError("a row needs at least one group")
    columns = _Columns()
    spans = [columns.add(group) for group in groups]
    has_blocks = any(group.blocks is not None for group in groups)
    has_modality = any(group.modality is not None for group in groups)
    return SharedRow(
        spans=tuple(spans),
        input_ids=torch.tensor([columns.ids]),
        index=torch.tensor([columns.index]),
        branch=torch.tensor(columns.branch),
        blocks=torch.tensor(columns.blocks) if has_blocks else None,
        modality=torch.tensor(columns.modality) if has_modality else None,
        predictors=torch.tensor(columns.predictors, dtype=torch.long),
        targets=torch.tensor(columns.targets, dtype=torch.long),
        sequence=torch.tensor(columns.sequence, dtype=torch.long),
        place=torch.tensor(columns.place, dtype=torch.long),
        num_sequences=columns.num_sequences,
        batch_rows=torch.tensor(list(range(columns.num_sequences) if batch_rows is None else batch_rows)),
        images=None if images is None else tuple(images),
    )


def array_places(row: SharedRow) -> tuple[Tensor, Tensor]:
    """Row and column, `[T]` each, of the scored tokens in the batch's `[S, L-1]` arrays.

    Column j speaks of the token at place j + 1.
    """
    return row.batch_rows[row.sequence], row.place - 1


class _Columns:
    """The row under construction, column by column."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.index: list[int] = []
        self.branch: list[int] = []
        self.blocks: list[int] = []
        self.modality: list[int] = []
        self.predictors: list[int] = []
        self.targets: list[int] = []
        self.sequence: list[int] = []
        self.place: list[int] = []
        self.num_sequences = 0
        self._num_blocks = 0

    def add(self, group: Group) -> Span:
        start, prefix = len(self.ids), len(group.prefix)
        if not group.branches:
            raise ValueError("a group needs at least one branch")
        for per_token in (group.blocks, group.modality):
            if per_token is not None and len(per_token) != prefix:
                raise ValueError(f"{len(per_token)} block or modality numbers for {prefix} prefix tokens")
        unread = self._score_prefix(group, start)
        self._write(group.prefix, range(prefix), 0, self._blocks(group), group.modality or [0] * prefix)
        for number, branch in enumerate(group.branches, start=1):
            self._add_branch(branch, number, prefix, start)
        span = Span(start, prefix, tuple(len(branch.ids) for branch in group.branches), unread)
        if span.length == 0:
            raise ValueError("a group without tokens")
        return span

    def _score_prefix(self, group: Group, start: int) -> int:
        """Note the prefix's scored tokens; the number of tokens before the first that is read."""
        prefix = len(group.prefix)
        scored = group.scored or [False] * prefix
        if len(scored) != prefix:
            raise ValueError(f"{len(scored)} scored flags for {prefix} prefix tokens")
        places = [place for place in range(1, prefix) if scored[place]]
        if places and len(group.branches) > 1:
            raise ValueError("a prefix of several branches is not scored: whose loss would it be")
        for place in places:
            self.predictors.append(start + place - 1)
            self.targets.append(group.prefix[place])
            self.sequence.append(self.num_sequences)
            self.place.append(place)
        return min([max(0, prefix - 1), *(place - 1 for place in places)])

    def _add_branch(self, branch: Branch, number: int, prefix: int, start: int) -> None:
        length = len(branch.ids)
        scored = [True] * length if branch.scored is None else list(branch.scored)
        if len(scored) != length:
            raise ValueError(f"{len(scored)} scored flags for {length} branch tokens")
        first = len(self.ids)
        for offset, (token, wanted) in enumerate(zip(branch.ids, scored, strict=True)):
            if wanted and prefix + offset > 0:
                self.predictors.append(first + offset - 1 if offset else start + prefix - 1)
                self.targets.append(token)
                self.sequence.append(self.num_sequences)
                self.place.append(prefix + offset)
        self._write(branch.ids, range(prefix, prefix + length), number, [-1] * length, [0] * length)
        self.num_sequences += 1

    def _write(
        self,
        ids: Sequence[int],
        index: range,
        branch: int,
        blocks: Sequence[int],
        modality: Sequence[int],
    ) -> None:
        self.ids.extend(ids)
        self.index.extend(index)
        self.branch.extend([branch] * len(ids))
        self.blocks.extend(blocks)
        self.modality.extend(modality)

    def _blocks(self, group: Group) -> list[int]:
        """The group's block numbers made distinct from those of the groups before it."""
        if group.blocks is None:
            return [-1] * len(group.prefix)
        numbers = [block + self._num_blocks if block >= 0 else -1 for block in group.blocks]
        self._num_blocks = max([self._num_blocks, *(number + 1 for number in numbers)])
        return numbers
