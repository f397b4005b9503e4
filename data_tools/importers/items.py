"""One published row before it is understood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.errors import AlignError


@dataclass(frozen=True)
class Item:
    """One row as its file holds it.

    Attributes:
        where: file (or hub id) and place.
        value: the parsed object, or why it could not be parsed.
        done: how much of the source was read when it came, in the source's unit.
    """

    where: str
    value: Any | AlignError
    done: int = 0
