"""At most so many training pairs, drawn by the seed and their ids: methods are compared on equal numbers."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter

from align.rows.schema import PreferenceRow
from data_tools.material.seeded_order import seeded_place


@dataclass
class PairCap:
    """Draws `most` pairs; None lets all pass, one by one.

    Attributes:
        seen: how many pairs there were.
    """

    most: int | None
    seed: int
    seen: int = 0

    def drawn(self, rows: Iterable[tuple[str, PreferenceRow]]) -> Iterator[tuple[str, PreferenceRow]]:
        """Of (prompt id, pair) those that are drawn, in their order; memory holds no more than these."""
        numbered = self._numbered(rows)
        if self.most is not None:
            kept = heapq.nsmallest(self.most, numbered, key=self._place)
            numbered = iter(sorted(kept, key=itemgetter(0)))
        return (row for _, row in numbered)

    def _numbered(
        self, rows: Iterable[tuple[str, PreferenceRow]]
    ) -> Iterator[tuple[int, tuple[str, PreferenceRow]]]:
        for row in rows:
            self.seen += 1
            yield self.seen, row

    def _place(self, numbered: tuple[int, tuple[str, PreferenceRow]]) -> str:
        return seeded_place(self.seed, f"cap {numbered[1][1].id}")
