"""The longest row of a dataset, as a shape: counted from headers and text, no picture decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from align.errors import AlignError
from align.inputs.budget import TokenBudget
from align.inputs.image_tokens import Size
from align.inputs.images import image_size
from align.inputs.training_data import DataSection, image_file, row_texts
from align.planning.planned_batch import RowShape
from align.rows.schema import PreferenceRow, SFTRow, read_rows


def longest_row(
    cls: type[SFTRow] | type[PreferenceRow], data: DataSection, processor: Any, max_length: int | None
) -> RowShape:
    """The shape of the row with the most tokens, prompt and answers once each.

    Rows that the stage would put into quarantine (missing images, too long) are passed over.

    Raises:
        AlignError: no such file, or no usable row in it.
    """
    best: RowShape | None = None
    size = 0
    for shape, images in _shapes(read_rows(cls, data.path, lambda *_: None), data, processor):
        total = images + shape.prompt + sum(shape.answers)
        fits = max_length is None or images + shape.prompt + max(shape.answers) <= max_length
        if fits and total > size:
            best, size = shape, total
    if best is None:
        raise AlignError("no row to plan with", where=str(data.path), fix="see `align preflight`")
    return best


def row_shape(
    row: SFTRow | PreferenceRow, sizes: Sequence[Size], processor: Any, budget: TokenBudget
) -> tuple[RowShape, int]:
    """One row's shape and its number of image tokens.

    Raises:
        AlignError: a row that the chat template refuses.
    """
    sequences = row_texts(processor, row)
    if isinstance(row, SFTRow):
        spoken = tuple(turn.text for turn in row.messages if turn.role == "assistant")
        whole, answers = budget.lengths([(sequences[0], sizes), (spoken, ())])
        prompt, lengths = whole - answers, (answers,)
    else:
        asked = [((sequences[0][0],), sizes), *(((answer,), ()) for _, answer in sequences)]
        prompt, *answers = budget.lengths(asked)
        lengths = tuple(answers)
    images = sum(budget.image(size, len(sizes) == 1) for size in sizes)
    return RowShape(max(1, prompt - images), lengths, tuple(sizes)), images


def _shapes(rows: Iterable[Any], data: DataSection, processor: Any) -> Iterator[tuple[RowShape, int]]:
    """Of the rows that can be read, each with its number of image tokens."""
    budget = TokenBudget(processor)
    for row in rows:
        try:
            sizes = [image_size(image_file(data.image_root, name), data.max_pixels) for name in row.images]
            yield row_shape(row, sizes, processor, budget)
        except AlignError:
            continue
