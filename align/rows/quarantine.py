"""Rows that could not be used: each with its place, reason and content in a file, and counted in a table."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from align.rows.tally import Tally

_LONGEST_TEXT = 2000
_DEEPEST = 20


class Quarantine:
    """Writes bad rows to a JSONL file as they come; the file is removed again when there were none."""

    def __init__(self, path: Path, what: str) -> None:
        self.path, self.tally = path, Tally(what)
        self._lines: IO[str] | None = None

    def __enter__(self) -> Quarantine:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lines = self.path.open("w", encoding="utf-8")
        return self

    def add(self, where: str, reason: str, detail: str, row: Any) -> None:
        """Record one row; `reason` is one of few kinds, which the table counts by."""
        assert self._lines is not None
        self.tally.drop(reason, where)
        record = {"where": where, "reason": reason, "detail": detail, "row": _plain(row)}
        self._lines.write(json.dumps(record) + "\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._lines is not None
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
