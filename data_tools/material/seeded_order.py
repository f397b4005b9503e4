"""An order that looks random, stays the same, and does not change when other rows come or go."""

from __future__ import annotations

import hashlib


def seeded_place(seed: int, name: str) -> str:
    """A place to sort by, 64 hexadecimal digits, from the seed and the name alone."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
