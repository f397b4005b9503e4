"""Which kind of rows a file holds, by the fields of its first row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from align.errors import AlignError
from align.schema import PreferenceRow, PromptRow, SFTRow


def row_class(path: Path) -> type[SFTRow] | type[PreferenceRow] | type[PromptRow]:
    """Preference rows have `chosen`, instruction rows `messages`, prompts `prompt` alone.

    Raises:
        AlignError: no such file, no rows, or none of these.
    """
    fields = _first_fields(path)
    for name, cls in (("chosen", PreferenceRow), ("messages", SFTRow), ("prompt", PromptRow)):
        if name in fields:
            return cls
    raise AlignError(
        f"unknown rows: fields {', '.join(sorted(fields)) or 'none'}",
        where=str(path),
        fix="give instruction rows (`messages`), preference rows (`chosen`, `rejected`) or prompts",
    )


def _first_fields(path: Path) -> set[str]:
    if not path.is_file():
        raise AlignError(f"no such file: {path}", fix="check the path, or run the stage that writes it")
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq
        from pyarrow import ArrowException

        try:
            return set(pq.read_schema(path).names)
        except (ArrowException, OSError) as error:
            raise AlignError(f"not a readable Parquet file: {error}", where=str(path)) from error
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            first = _parsed(line)
            if isinstance(first, dict):
                return set(first)
    return set()


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
