"""Rows that could not be used: each with its place and reason in a file, and counted in a table.

A line is {"where": place, "id"?: of the row, "reason": one of few kinds, "detail"?: in words, "row"?: its
content}; what is not known is left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from align.errors import AlignError
from align.rows.tally import Tally

_LONGEST_TEXT = 2000
_DEEPEST = 20


class Quarantine:
    """Writes bad rows to a JSONL file as they come; the file is removed again when there were none.

    Attributes:
        tally: the bad rows by reason.
        first: place and detail of the first of them; empty while there is none.
    """

    def __init__(self, path: Path | None, what: str, refused: AlignError | None = None) -> None:
        """Without a path (a process beside the main one) rows are counted only.

        Args:
            refused: an error with what to do about a bad row; given, the first one raises it, with place and
                reason.
        """
        self.path, self.tally, self.refused, self.first = path, Tally(what), refused, ""
        self._lines: IO[str] | None = None

    def __enter__(self) -> Quarantine:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lines = self.path.open("w", encoding="utf-8")
        return self

    def add(self, where: str, reason: str, detail: str = "", row: Any = None, row_id: str = "") -> None:
        """Record one row.

        Args:
            where: file and line, or what else finds it.
            reason: one of few kinds, which the table counts by.

        Raises:
            AlignError: with `refused`.
        """
        said = detail or reason
        if self.refused is not None:
            what = said if said.startswith("bad ") else f"bad row: {said}"
            raise AlignError(what, where=f"{where} {row_id}".strip(), fix=self.refused.fix)
        self.first = self.first or f"{where}: {said}"
        self.tally.drop(reason, row_id or where)
        record = {"where": where, "id": row_id, "reason": reason, "detail": detail, "row": _plain(row)}
        if self._lines is not None:
            told = {key: value for key, value in record.items() if value not in ("", None)}
            self._lines.write(json.dumps(told) + "\n")

    def refuse(self, where: str, detail: str, raw: Any) -> None:
        """For `read_rows(..., quarantine.refuse)`: what is no row of the wanted kind."""
        row_id = raw.get("id") if isinstance(raw, dict) else None
        self.add(Path(where).name, "schema", detail, raw, row_id if isinstance(row_id, str) else "")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lines is None or self.path is None:
            return
        self._lines.close()
        if not self.tally.dropped:
            self.path.unlink()


def _plain(value: Any, depth: int = 0) -> Any:
    """What JSON can hold and a person can read: bytes by their number, long texts cut."""
    if depth > _DEEPEST:
        return "..."
    if isinstance(value, dict):
        return {str(key)[:_LONGEST_TEXT]: _plain(part, depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, depth + 1) for part in value]
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, str):
        return (
            value if len(value) <= _LONGEST_TEXT else value[:_LONGEST_TEXT] + f"... ({len(value)} characters)"
        )
    if value is None or isinstance(value, bool | int | float):
        return value
    return repr(value)[:_LONGEST_TEXT]
