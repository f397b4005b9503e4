"""What a row of any kind is called in lists of rows."""

from __future__ import annotations

from align.rows.schema import BaseRow

_FIELDS = ("id", "candidate_id", "sample_id")


def row_name(row: BaseRow) -> str:
    """Its id, or the id of what it is about.

    >>> from align.rows.schema import Message, PromptRow
    >>> row_name(PromptRow(id="a", prompt=[Message(role="user", content="?")]))
    'a'
    """
    return next((str(getattr(row, name)) for name in _FIELDS if hasattr(row, name)), "")
