"""Two answers side by side, asked in both orders: who wins, and what the order does to the judge.

Judges favour a place (Zheng et al. 2023, arXiv 2306.05685, section 3.3), so a winner counts only if it wins
in both orders, and a disagreement is a tie. Verdicts are places as the judge saw them: `forth` with the first
answer in the first place, `back` with it in the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from align.judging.replies import Side

SWAPPED: Mapping[Side, Side] = {"first": "second", "second": "first", "tie": "tie"}
"""The same answer's place in the other order."""


def winner_of(forth: Side | None, back: Side | None) -> Side | None:
    """Which answer wins, in the places of `forth`; None where one of the orders has no verdict.

    >>> pairs = ("first", "second"), ("second", "first"), ("first", "first"), ("first", "tie"), ("tie", None)
    >>> [winner_of(*pair) for pair in pairs]
    ['first', 'second', 'tie', 'tie', None]
    """
    if forth is None or back is None:
        return None
    return forth if forth == SWAPPED[back] else "tie"


@dataclass(frozen=True)
class OrderBias:
    """What the place of an answer does to a judge.

    Attributes:
        couples: with a verdict in both orders.
        first_place: of the verdicts that prefer an answer, the share for the one shown first (0.5: no bias).
        consistent: share of the couples whose two orders prefer the same answer, or none. Both are None where
            there is nothing to count.
    """

    couples: int
    first_place: float | None
    consistent: float | None


def order_bias(couples: Sequence[tuple[Side, Side]]) -> OrderBias:
    """From (forth, back) of each couple.

    >>> order_bias([("first", "second"), ("first", "first"), ("tie", "tie"), ("second", "tie")])
    OrderBias(couples=4, first_place=0.6, consistent=0.5)
    """
    preferred = [side for couple in couples for side in couple if side != "tie"]
    same = sum(forth == SWAPPED[back] for forth, back in couples)
    return OrderBias(
        couples=len(couples),
        first_place=preferred.count("first") / len(preferred) if preferred else None,
        consistent=same / len(couples) if couples else None,
    )
