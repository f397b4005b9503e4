"""Counts of lengths as they come by: percentiles, buckets and the longest rows, in constant memory."""

from __future__ import annotations

import heapq
from collections import Counter
from typing import Any

_SHARES = (0.5, 0.9, 0.99)
_FIRST_EDGE = 128


class Lengths:
    """A histogram of token counts with the ids of the longest rows.

    Args:
        num_longest: how many of the longest rows to remember.
    """

    def __init__(self, num_longest: int = 20) -> None:
        self._counts: Counter[int] = Counter()
        self._longest: list[tuple[int, int, str]] = []
        self._num_longest = num_longest

    def add(self, tokens: int, row_id: str) -> None:
        """Count one row."""
        self._counts[tokens] += 1
        entry = (tokens, -self.total, row_id)  # of equals the first one stays
        if len(self._longest) < self._num_longest:
            heapq.heappush(self._longest, entry)
        else:
            heapq.heappushpop(self._longest, entry)

    @property
    def total(self) -> int:
        """Rows counted."""
        return self._counts.total()

    @property
    def max(self) -> int:
        """The longest row's tokens; 0 without rows."""
        return max(self._counts, default=0)

    def summary(self) -> dict[str, float]:
        """Mean, percentiles (the smallest length that so many rows do not exceed) and maximum."""
        if not self._counts:
            return {}
        tokens = sum(length * count for length, count in self._counts.items())
        found: dict[str, float] = {"tokens": tokens, "mean": round(tokens / self.total, 1)}
        for share in _SHARES:
            found[f"p{share * 100:.0f}"] = self._percentile(share)
        return found | {"max": self.max}

    def _percentile(self, share: float) -> int:
        below = 0
        for length in sorted(self._counts):
            below += self._counts[length]
            if below >= share * self.total:
                return length
        return self.max

    def buckets(self) -> list[dict[str, int]]:
        """Rows by length, `from` and `to` inclusive: edges double from 128 on, with one between above 512."""
        edges, edge = [0], _FIRST_EDGE
        while edges[-1] < self.max:
            edges += [edge] if edge <= 512 else [edge * 3 // 4, edge]
            edge *= 2
        rows = Counter[int]()
        for length, count in self._counts.items():
            rows[next(k for k, upper in enumerate(edges) if length <= upper)] += count
        return [
            {"from": edges[k - 1] + 1, "to": edges[k], "rows": rows[k]}
            for k in range(1, len(edges))
            if rows[k]
        ]

    def longest(self) -> list[dict[str, Any]]:
        """The longest rows, the longest first."""
        found = sorted(self._longest, reverse=True)
        return [{"id": row_id, "tokens": tokens} for tokens, _, row_id in found]
