"""Which of our rows a file holds, told from its first row's keys."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from align.errors import AlignError
from align.rows.schema import (
    BaseRow,
    Candidate,
    Prediction,
    PreferenceRow,
    PromptRow,
    Score,
    SFTRow,
    Verdict,
    raw_rows,
)

# The keys that only rows of this class have together; the first class that fits is the one.
_TELLING: tuple[tuple[type[BaseRow], frozenset[str]], ...] = (
    (SFTRow, frozenset({"id", "messages"})),
    (PreferenceRow, frozenset({"id", "prompt", "chosen", "rejected"})),
    (Candidate, frozenset({"prompt_id", "prompt", "text"})),
    (PromptRow, frozenset({"id", "prompt"})),
    (Verdict, frozenset({"candidate_id", "judge", "score"})),
    (Score, frozenset({"task", "sample_id", "values"})),
    (Prediction, frozenset({"key", "task", "sample_id"})),
)


def row_class(keys: Iterable[str]) -> type[BaseRow] | None:
    """The class of a row with these keys; None for no row of ours."""
    present = set(keys)
    return next((cls for cls, telling in _TELLING if telling <= present), None)


def file_class(path: Path) -> type[BaseRow]:
    """The class of a file's rows, by the first that is an object.

    Raises:
        AlignError: missing file, unknown format, or rows that are none of ours.
    """
    seen: set[str] = set()
    broken = ""
    for _, raw in islice(raw_rows(path), 100):
        if isinstance(raw, dict):
            found = row_class(raw)
            if found is not None:
                return found
            seen = seen or set(raw)
        elif isinstance(raw, AlignError):
            broken = broken or f"its first row is {raw.what}"
    known = ", ".join(cls.__name__ for cls, _ in _TELLING)
    what = f"its first row has the keys {', '.join(sorted(seen))}" if seen else broken or "it holds no rows"
    raise AlignError(
        f"none of our rows ({known}): {what}",
        where=str(path),
        fix="`align import auto` makes rows of datasets",
    )
