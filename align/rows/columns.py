"""Arrow's rows as Python's values, one bad text costing its own row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from align.errors import AlignError


def plain_rows(batch: Any) -> Iterator[dict[str, Any] | AlignError]:
    """The rows of a record batch; a row whose text is not UTF-8 comes as the error that it is."""
    from pyarrow import ArrowException

    try:
        yield from batch.to_pylist()
        return
    except (UnicodeDecodeError, ValueError, OverflowError, ArrowException):
        pass
    for number in range(batch.num_rows):
        try:
            yield batch.slice(number, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            yield AlignError(f"not UTF-8: byte 0x{error.object[error.start]:02x} in a text")
        except (ValueError, OverflowError, ArrowException) as error:
            yield AlignError(f"not a readable value: {error}")
