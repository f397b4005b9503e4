"""What to do with a row: keep it, keep it with smaller pictures, or leave it out. Text is never cut."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.errors import AlignError
from align.inputs.budget import TokenBudget
from align.inputs.chat import check_text, image_tokens
from align.inputs.image_tokens import Size
from align.inputs.images import image_size, resolve_image
from align.inputs.training_data import row_texts
from align.rows.schema import PreferenceRow, SFTRow

Row = SFTRow | PreferenceRow

_REMEMBERED = 50_000
_STEPS = 10  # halvings of the range of scales: finer than one pixel in a thousand
_SMALLEST_SIDE = 28


@dataclass(frozen=True)
class Decision:
    """A row's fate.

    Attributes:
        tokens: of its longest sequence, after any resizing; None for a row that was not counted.
        sizes: (height, width) of its pictures as they should be, `images` before `rejected_images`.
        reason: why the row is left out; empty for a row that is kept.
    """

    row: Row
    tokens: int | None = None
    image_tokens: int = 0
    sizes: tuple[Size, ...] = ()
    resized: bool = False
    reason: str = ""
    detail: str = ""


@dataclass
class Headers:
    """Sizes of pictures from their headers, the last ones remembered."""

    root: Path
    max_pixels: int = 50_000_000
    _known: OrderedDict[str, Size | AlignError] = field(default_factory=OrderedDict)

    def size(self, name: str) -> Size:
        """(height, width) of a picture.

        Raises:
            AlignError: missing, outside the root, damaged or too large.
        """
        if name not in self._known:
            try:
                self._known[name] = image_size(resolve_image(self.root, name), self.max_pixels)
            except AlignError as error:
                self._known[name] = error
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        found = self._known[name]
        if isinstance(found, AlignError):
            raise AlignError(found.what, where=found.where, fix=found.fix)
        return found


class Decider:
    """Decides on rows for one processor and one longest length.

    Args:
        max_length: most tokens of a sequence; None for no limit.
        min_scale: how far a picture's sides may shrink for a row that is too long; 1 forbids it.
    """

    def __init__(self, processor: Any, headers: Headers, max_length: int | None, min_scale: float) -> None:
        self._processor, self._headers = processor, headers
        self._max_length, self._min_scale = max_length, min_scale
        self._budget = TokenBudget(processor)
        self._tokens = image_tokens(processor)

    def decide(self, rows: Sequence[Row]) -> list[Decision]:
        """A decision for each row, in order; rows are counted together, which is faster."""
        decisions: list[Decision | None] = []
        counted: list[tuple[Row, list[tuple[str, ...]], list[Size]]] = []
        for row in rows:
            try:
                sizes = [self._headers.size(name) for name in _names(row)]
            except AlignError as error:
                decisions.append(Decision(row, reason=error.what.split(":")[0], detail=error.what))
                continue
            try:
                check_text(_texts(row), self._tokens)
                counted.append((row, row_texts(self._processor, row), sizes))
                decisions.append(None)
            except AlignError as error:
                decisions.append(Decision(row, reason="text the model cannot take", detail=error.what))
        lengths = iter(self._lengths(counted))
        found = iter([self._judged(*one, tokens) for one, tokens in zip(counted, lengths, strict=True)])
        return [decision or next(found) for decision in decisions]

    def _judged(self, row: Row, sequences: list[tuple[str, ...]], sizes: list[Size], tokens: int) -> Decision:
        if self._max_length is None or tokens <= self._max_length:
            return self._kept(row, tokens, sizes, resized=False)
        smaller = self._shrink(row, sequences, sizes)
        if smaller is not None:
            return self._kept(row, *smaller, resized=True)
        detail = f"{tokens} tokens, more than {self._max_length}"
        reason = "too long, also with smaller pictures" if sizes else "too long"
        return Decision(row, tokens, self._image_tokens(row, sizes), reason=reason, detail=detail)

    def _kept(self, row: Row, tokens: int, sizes: list[Size], resized: bool) -> Decision:
        return Decision(row, tokens, self._image_tokens(row, sizes), tuple(sizes), resized)

    def _shrink(
        self, row: Row, sequences: list[tuple[str, ...]], sizes: list[Size]
    ) -> tuple[int, list[Size]] | None:
        """The length and sizes at the largest common scale at which the row fits; None when none does."""
        if not sizes or self._min_scale >= 1:
            return None
        low, high = self._min_scale, 1.0
        best = self._fits(row, sequences, sizes, low)
        for _ in range(_STEPS if best else 0):
            middle = (low + high) / 2
            found = self._fits(row, sequences, sizes, middle)
            low, high, best = (middle, high, found) if found else (low, middle, best)
        return best

    def _fits(
        self, row: Row, sequences: list[tuple[str, ...]], sizes: list[Size], scale: float
    ) -> tuple[int, list[Size]] | None:
        scaled = [scaled_size(size, scale) for size in sizes]
        tokens = self._lengths([(row, sequences, scaled)])[0]
        return (tokens, scaled) if self._max_length is not None and tokens <= self._max_length else None

    def _lengths(self, counted: Sequence[tuple[Row, list[tuple[str, ...]], list[Size]]]) -> list[int]:
        """Tokens of each row's longest sequence, with its own pictures or the worse ones."""
        asked, spans = [], []
        for row, sequences, sizes in counted:
            views = [sizes[: len(row.images)], sizes[len(row.images) :]]
            used = views if views[1] else views[:1]
            asked += [(sequence, view) for view in used for sequence in sequences]
            spans.append(len(used) * len(sequences))
        lengths = iter(self._budget.lengths(asked))
        return [max(next(lengths) for _ in range(span)) for span in spans]

    def _image_tokens(self, row: Row, sizes: Sequence[Size]) -> int:
        own = sizes[: len(row.images)]
        return sum(self._budget.image(size, len(own) == 1) for size in own)


def scaled_size(size: Size, scale: float) -> Size:
    """A picture's (height, width) at a scale, its shape kept and no side below 28 pixels (or its own)."""
    height, width = (max(min(side, _SMALLEST_SIDE), round(side * scale)) for side in size)
    return height, width


def _names(row: Row) -> list[str]:
    return row.images if isinstance(row, SFTRow) else [*row.images, *row.rejected_images]


def _texts(row: Row) -> list[str]:
    turns = row.messages if isinstance(row, SFTRow) else [*row.prompt, *row.chosen, *row.rejected]
    return [turn.text for turn in turns]
