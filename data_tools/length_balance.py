"""Choose pairs so that chosen and rejected answers are equally long on average.

A judge of invented objects prefers short answers, and DPO learns shortness sooner than truth. RLAIF-V
(Yu et al. 2024, arXiv 2405.17220) searches a shortening ratio from 0 to 1 in steps of 0.02 until the
mean lengths agree. Here a ratio r means: prompts whose seeded place in [0, 1) lies below r take a
pair whose chosen answer is the shorter one first, the others take one whose chosen answer is not shorter
first. What no ratio can balance is trimmed, the largest length gaps first.

Pairs are gone through twice and not kept: first their gaps are counted (`LengthCounts`), which is all that
ratio and trimming depend on, then they are picked (`Picker`).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STEPS = 50
_EDGES = [0.02 * step for step in range(1, STEPS + 1)]


@dataclass(frozen=True, slots=True)
class Pair:
    """An eligible pair of answers to one prompt.

    Attributes:
        margin: score of chosen minus score of rejected, above 0.
        gap: tokens of chosen minus tokens of rejected.
    """

    prompt_id: str
    chosen_id: str
    rejected_id: str
    margin: float
    gap: int

    @property
    def row_id(self) -> str:
        """The id of its training row."""
        return f"{self.chosen_id}>{self.rejected_id}"

    @property
    def key(self) -> tuple[str, str, str]:
        """What sorts pairs the same way on every machine."""
        return (self.prompt_id, self.chosen_id, self.rejected_id)

    @property
    def rank(self) -> tuple[float, int, tuple[str, str, str]]:
        """Sorts a prompt's pairs: by margin, then by smallest length gap."""
        return (-self.margin, abs(self.gap), self.key)


@dataclass(frozen=True)
class Balanced:
    """Which pairs to pick, and how that came about; gaps are mean tokens of chosen minus rejected.

    Attributes:
        step: prompts of the first so many fiftieths shorten; None where every prompt goes by margin alone.
        before: gap when every prompt takes its best-margin pairs, lengths ignored.
        searched: gap at the best ratio.
        after: gap after trimming.
        trimmed: how many pairs trimming takes away.
        stay: gap of a pair -> how many with this gap stay.
    """

    most: int
    seed: int
    step: int | None
    before: float
    searched: float
    after: float
    trimmed: int
    stay: Mapping[int, int]

    @property
    def ratio(self) -> float:
        """The shortening ratio."""
        return round((self.step or 0) / STEPS, 2)

    @property
    def pairs(self) -> int:
        """How many stay."""
        return sum(self.stay.values())


class LengthCounts:
    """The length gaps that each prompt would bring, counted: memory grows with the gaps that differ alone.

    Args:
        most: pairs of one prompt.
        seed: of the prompts' places.
    """

    def __init__(self, most: int, seed: int) -> None:
        self.most, self.seed = most, seed
        self._by_margin: Counter[int] = Counter()
        # Of each fiftieth of the places: what its prompts bring if they shorten, and if they don't.
        self._lots: list[tuple[Counter[int], Counter[int]]] = [(Counter(), Counter()) for _ in _EDGES]

    def add(self, prompt_id: str, pairs: Sequence[Pair]) -> None:
        """Count all eligible pairs of one prompt."""
        by_margin, shorter, others = _lots(pairs, self.most)
        self._by_margin.update(pair.gap for pair in by_margin)
        counts = self._lots[_place(self.seed, prompt_id)]
        for count, lot in zip(counts, (shorter, others), strict=True):
            count.update(pair.gap for pair in lot)

    def balanced(self, tolerance: float | None, max_trimmed: float) -> Balanced:
        """What to pick for a mean gap within `tolerance` tokens, if it can be done; `after` tells.

        Args:
            tolerance: None leaves lengths as they come.
            max_trimmed: largest share of pairs that trimming may take; the rest of the gap then stays.
        """
        before = mean_gap(self._by_margin)
        if tolerance is None:
            stay = dict(self._by_margin)
            return Balanced(self.most, self.seed, None, before, before, before, 0, stay)
        step = self._search()
        found: Counter[int] = Counter()
        for place, (shorter, others) in enumerate(self._lots):
            found.update(shorter if place < step else others)
        gone = trim(found, tolerance, max_trimmed)
        stay = found - gone
        return Balanced(
            self.most, self.seed, step, before, mean_gap(found), mean_gap(stay), gone.total(), stay
        )

    def _search(self) -> int:
        """The step with the smallest mean gap, the lowest of several.

        Each prompt brings the same number of pairs either way, so the sums compare as the means do.
        """
        total = sum(_sum(others) for _, others in self._lots)
        best = (abs(total), 0)
        for place, (shorter, others) in enumerate(self._lots):
            total += _sum(shorter) - _sum(others)
            best = min(best, (abs(total), place + 1))
        return best[1]


class Picker:
    """Picks the balanced pairs in a second pass over the prompts, in the same order on every machine.

    Of pairs with one gap of which some are trimmed, the first in order of their ids stay, so the prompts must
    come in order of theirs.
    """

    def __init__(self, balanced: Balanced) -> None:
        self._balanced = balanced
        self._left = dict(balanced.stay)

    def pick(self, prompt_id: str, pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
        """Of all eligible pairs of one prompt: (those that stay, those that are trimmed), sorted."""
        by_margin, shorter, others = _lots(pairs, self._balanced.most)
        step = self._balanced.step
        if step is None:
            lot = by_margin
        else:
            lot = shorter if _place(self._balanced.seed, prompt_id) < step else others
        kept, trimmed = [], []
        for pair in sorted(lot, key=lambda pair: pair.key):
            left = self._left.get(pair.gap, 0)
            (kept if left else trimmed).append(pair)
            self._left[pair.gap] = max(left - 1, 0)
        return kept, trimmed


def trim(gaps: Mapping[int, int], tolerance: float, max_trimmed: float) -> Counter[int]:
    """Take away what pulls hardest in the mean gap's direction until it is within `tolerance`.

    Args:
        gaps: gap -> number of pairs.

    Returns:
        gap -> number of pairs to take away.
    """
    left = sorted(gap for gap, number in gaps.items() if number)
    gone: Counter[int] = Counter()
    total, count = _sum(gaps), sum(gaps.values())
    for _ in range(int(max_trimmed * count)):
        if abs(total) <= tolerance * count:
            break
        side = -1 if total > 0 else 0
        worst = left[side]
        gone[worst] += 1
        total, count = total - worst, count - 1
        if gone[worst] == gaps[worst]:
            left.pop(side)
    return gone


def mean_gap(gaps: Mapping[int, int]) -> float:
    """Mean tokens of chosen minus rejected, of numbers of pairs by gap; 0 without pairs."""
    return _sum(gaps) / max(sum(gaps.values()), 1)


def _sum(gaps: Mapping[int, int]) -> int:
    return sum(gap * count for gap, count in gaps.items())


def _lots(pairs: Sequence[Pair], most: int) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """The pairs that a prompt takes by margin alone, if it shortens, and if it does not."""
    ranked = sorted(pairs, key=lambda pair: pair.rank)
    shorter, others = ([pair for pair in ranked if (pair.gap < 0) is side] for side in (True, False))
    return ranked[:most], (shorter + others)[:most], (others + shorter)[:most]


def _place(seed: int, prompt_id: str) -> int:
    """The fiftieth, 0 to 49, of a seeded place in [0, 1) that depends on nothing but the prompt."""
    place = int(hashlib.sha256(f"{seed}:{prompt_id}".encode()).hexdigest()[:13], 16) / 16**13
    return bisect_right(_EDGES, place)
