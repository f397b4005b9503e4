"""Why a published row cannot become one of ours."""

from __future__ import annotations


class Unusable(Exception):
    """A row that goes to quarantine.

    Args:
        reason: the kind of fault, one of few, which the table of dropped rows counts by.
        detail: what it was in this row.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail
