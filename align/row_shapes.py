"""The longest row of a dataset, as a shape: counted from headers and text, no picture decoded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from align.budget import TokenBudget
from align.errors import AlignError
from align.image_tokens import Size
from align.images import image_size, resolve_image
from align.planned_batch import RowShape
from align.schema import PreferenceRow, SFTRow, read_rows
from align.training_data import DataSection, row_texts

_ROWS_AT_ONCE = 512


def longest_row(
    cls: type[SFTRow] | type[PreferenceRow], data: DataSection, processor: Any, max_length: int | None
) -> RowShape:
    """The shape of the row with the most tokens, prompt and answers once each.

    Rows that the stage would put into quarantine (missing images, too long) are passed over.

    Raises:
        AlignError: no such file, or no usable row in it.
    """
    budget = TokenBudget(processor)
    best: RowShape | None = None
    size = 0
    rows: Iterator[Any] = iter(read_rows(cls, data.path, lambda *_: None))
    while batch := list(islice(rows, _ROWS_AT_ONCE)):
        for shape, images in _shapes(batch, data, processor, budget):
            total = images + shape.prompt + sum(shape.answers)
            fits = max_length is None or images + shape.prompt + max(shape.answers) <= max_length
            if fits and total > size:
                best, size = shape, total
    if best is None:
        raise AlignError("no row to plan with", where=str(data.path), fix="see `align preflight`")
    return best


def _shapes(
    rows: list[Any], data: DataSection, processor: Any, budget: TokenBudget
) -> Iterator[tuple[RowShape, int]]:
    """Shapes, each with its number of image tokens."""
    asked: list[tuple[tuple[str, ...], list[Size]]] = []
    known: list[tuple[list[Size], int]] = []
    for row in rows:
        try:
            sizes = [image_size(resolve_image(data.image_root, name), data.max_pixels) for name in row.images]
            sequences = row_texts(processor, row)
        except AlignError:
            continue
        if isinstance(row, SFTRow):
            answers = [turn.content for turn in row.messages if turn.role == "assistant"]
            asked += [(sequences[0], sizes), (tuple(answers), [])]
            known.append((sizes, 2))
        else:
            asked += [((sequences[0][0],), sizes), *(((answer,), []) for _, answer in sequences)]
            known.append((sizes, 3))
    lengths = iter(budget.lengths(asked))
    for sizes, count in known:
        first, *answers = islice(lengths, count)
        images = sum(budget.image(size, len(sizes) == 1) for size in sizes)
        prompt = first - images - (answers[0] if count == 2 else 0)  # an SFT row holds its answers
        yield RowShape(max(1, prompt), tuple(answers), tuple(sizes)), images
