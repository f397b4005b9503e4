"""What an answer says that is not in the picture, as its task's scorer found it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from align.rows.schema import Score


@dataclass(frozen=True)
class Mark:
    """Characters [start, end) of an answer that name an object, and whether it is invented."""

    start: int
    end: int
    name: str
    is_invented: bool


def mentions_of(row: Score, mode: str = "official") -> list[dict[str, Any]] | None:
    """The object mentions that the primary scorer found in a caption; None when the row is no caption."""
    found = row.meta.get("mentions_strict" if mode == "strict" else "mentions")
    return found if isinstance(found, list) else None


def placed_in(row: Score, mode: str = "official") -> list[dict[str, Any]] | None:
    """The mentions, or of objects that a judge told, those that stand in the answer's own words; None when
    the row is no description."""
    found = mentions_of(row, mode)
    return row.meta.get("places") if found is None else found


def invented_in(row: Score, mode: str = "official") -> list[str] | None:
    """Names of the invented objects, repeats counting; None when the scorer looks for none.

    Rows of one scorer have mentions with their places, those of another what a judge told.
    """
    found = mentions_of(row, mode)
    if found is not None:
        return [str(mention["category"]) for mention in found if mention["invented"]]
    words = row.meta.get("invented")
    if mode == "strict":
        words = row.meta.get("invented_strict", words)
    return [str(word) for word in words] if isinstance(words, list) else None


def marks_in(row: Score, mode: str = "official") -> list[Mark]:
    """Where the objects stand in the answer, in order; words without a place are looked for, plurals too."""
    found = mentions_of(row, mode)
    if found is not None:
        return [_mark(mention) for mention in found]
    text, words = str(row.meta.get("text") or ""), set(invented_in(row, mode) or ())
    if not words:
        return []
    either = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    pattern = re.compile(rf"\b({either})(?:e?s)?\b", re.IGNORECASE)
    return [Mark(*match.span(), match.group(1).lower(), True) for match in pattern.finditer(text)]


def _mark(mention: Mapping[str, Any]) -> Mark:
    return Mark(
        int(mention["start"]), int(mention["end"]), str(mention["category"]), bool(mention["invented"])
    )
