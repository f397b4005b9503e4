"""Choose pairs so that chosen and rejected answers are alike in what DPO learns sooner than truth.

A judge of invented objects prefers short answers, and DPO learns shortness sooner than truth; a chosen answer
that names more things a word teaches naming, and where there is nothing more to name, naming again. So the
mean gap between chosen and rejected is held near 0 for each feature (`answer_counts.FEATURES`): length,
mentions, repetition, number words.

RLAIF-V (Yu et al. 2024, arXiv 2405.17220) searches a shortening ratio from 0 to 1 in steps of 0.02 until the
mean lengths agree. Here a ratio r means: prompts whose seeded place in [0, 1) lies below r take a pair whose
chosen answer is the smaller one (shorter, fewer mentions, all in units of their tolerances) first, the others
take one whose chosen answer is not smaller first. What no ratio can balance is trimmed: each step takes away
the pairs without which the gaps are smallest together.

Pairs are gone through twice and not kept: first their gaps are counted (`GapCounts`), which is all that
ratio and trimming depend on, then they are picked (`Picker`).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from align.progress import Bar

Array = NDArray[np.float64]
Gaps = tuple[int, ...]
"""Chosen minus rejected, feature by feature."""

STEPS = 50
_EDGES = [0.02 * step for step in range(1, STEPS + 1)]
_LOTS_TAKEN = 1000
"""Trimming takes at least this fraction of what is left in one step, so that a million pairs take as many
steps as a thousand."""
_ROUNDING = 1e-9
_MOSTLY = 0.8
"""Kinds of which none is left are looked at until they are so many."""


@dataclass(frozen=True)
class Limits:
    """How far the mean gap of each feature may be from 0.

    Attributes:
        tolerances: in the feature's own unit; None: as far as it likes.
        may_fall: below 0 it may be as far as it likes (chosen answers that repeat themselves less).
    """

    tolerances: tuple[float | None, ...]
    may_fall: tuple[bool, ...]

    @property
    def balances(self) -> bool:
        """Whether any feature has a tolerance."""
        return any(tolerance is not None for tolerance in self.tolerances)

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """What a gap is multiplied with to be in units of its tolerance; 0 without one."""
        return tuple(1 / tolerance if tolerance else 0.0 for tolerance in self.tolerances)

    def size(self, gaps: Gaps) -> float:
        """How large a pair's gaps are together; the first feature's where none has a tolerance."""
        return sum(abs(gap) * weight for gap, weight in zip(gaps, self._telling, strict=True))

    def is_smaller(self, gaps: Gaps) -> bool:
        """Whether the chosen answer is the smaller one, all features taken together."""
        return sum(gap * weight for gap, weight in zip(gaps, self._telling, strict=True)) < 0

    @property
    def _telling(self) -> tuple[float, ...]:
        return self.weights if self.balances else (1.0, *self.weights[1:])


@dataclass(frozen=True, slots=True)
class Pair:
    """An eligible pair of answers to one prompt.

    Attributes:
        margin: score of chosen minus score of rejected, above 0.
    """

    prompt_id: str
    chosen_id: str
    rejected_id: str
    margin: float
    gaps: Gaps

    @property
    def row_id(self) -> str:
        """The id of its training row."""
        return f"{self.chosen_id}>{self.rejected_id}"

    @property
    def key(self) -> tuple[str, str, str]:
        """What sorts pairs the same way on every machine."""
        return (self.prompt_id, self.chosen_id, self.rejected_id)


@dataclass(frozen=True)
class Balanced:
    """Which pairs to pick, and how that came about.

    Attributes:
        step: prompts of the first so many fiftieths take smaller answers; None where every prompt goes by
            margin alone.
        before: mean gaps when every prompt takes its best-margin pairs, features ignored.
        searched: mean gaps at the best ratio.
        after: mean gaps after trimming.
        trimmed: how many pairs trimming takes away.
        stay: gaps of a pair -> how many with these gaps stay.
    """

    most: int
    seed: int
    limits: Limits
    step: int | None
    before: tuple[float, ...]
    searched: tuple[float, ...]
    after: tuple[float, ...]
    trimmed: int
    stay: Mapping[Gaps, int]

    @property
    def ratio(self) -> float:
        """The shortening ratio."""
        return round((self.step or 0) / STEPS, 2)

    @property
    def pairs(self) -> int:
        """How many stay."""
        return sum(self.stay.values())


class GapCounts:
    """The gaps that each prompt would bring, counted: memory grows with the gaps that differ alone.

    Args:
        most: pairs of one prompt.
        seed: of the prompts' places.
    """

    def __init__(self, most: int, seed: int, limits: Limits) -> None:
        self.most, self.seed, self.limits = most, seed, limits
        self._by_margin: Counter[Gaps] = Counter()
        # Of each fiftieth of the places: what its prompts bring if they take smaller answers, and if not.
        self._lots: list[tuple[Counter[Gaps], Counter[Gaps]]] = [(Counter(), Counter()) for _ in _EDGES]

    def add(self, prompt_id: str, pairs: Sequence[Pair]) -> None:
        """Count all eligible pairs of one prompt."""
        by_margin, smaller, others = _lots(pairs, self.most, self.limits)
        self._by_margin.update(pair.gaps for pair in by_margin)
        counts = self._lots[_place(self.seed, prompt_id)]
        for count, lot in zip(counts, (smaller, others), strict=True):
            count.update(pair.gaps for pair in lot)

    def balanced(self, max_trimmed: float) -> Balanced:
        """What to pick for mean gaps within their tolerances, if it can be done; `after` tells.

        Args:
            max_trimmed: largest share of pairs that trimming may take; the rest of the gaps then stays.
        """
        before = self._means(self._by_margin)
        if not self.limits.balances:
            stay = dict(self._by_margin)
            return Balanced(self.most, self.seed, self.limits, None, before, before, before, 0, stay)
        step = self._search()
        found: Counter[Gaps] = Counter()
        for place, (smaller, others) in enumerate(self._lots):
            found.update(smaller if place < step else others)
        gone = trim(found, self.limits, max_trimmed)
        stay = found - gone
        searched, after = self._means(found), self._means(stay)
        return Balanced(self.most, self.seed, self.limits, step, before, searched, after, gone.total(), stay)

    def _search(self) -> int:
        """The step with the smallest mean gaps together, the lowest of several.

        Each prompt brings the same number of pairs either way, so the sums compare as the means do.
        """
        sums = [(self._sum(smaller), self._sum(others)) for smaller, others in self._lots]
        totals = [np.sum([others for _, others in sums], axis=0)]
        for smaller, others in sums:
            totals.append(totals[-1] + smaller - others)
        scaled = _beyond(np.array(totals) * self.limits.weights, self.limits.may_fall)
        return int(np.argmin(np.round((scaled**2).sum(axis=1), 9)))

    def _means(self, gaps: Mapping[Gaps, int]) -> tuple[float, ...]:
        means = self._sum(gaps) / max(sum(gaps.values()), 1)
        return tuple(float(mean) for mean in means)

    def _sum(self, gaps: Mapping[Gaps, int]) -> Array:
        total = np.zeros(len(self.limits.tolerances))
        for gap, count in gaps.items():
            total += np.array(gap, dtype=np.float64) * count
        return total


class Picker:
    """Picks the balanced pairs in a second pass over the prompts, in the same order on every machine.

    Of pairs with the same gaps of which some are trimmed, the first in order of their ids stay, so the
    prompts must come in order of theirs.
    """

    def __init__(self, balanced: Balanced) -> None:
        self._balanced = balanced
        self._left = dict(balanced.stay)

    def pick(self, prompt_id: str, pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
        """Of all eligible pairs of one prompt: (those that stay, those that are trimmed), sorted."""
        by_margin, smaller, others = _lots(pairs, self._balanced.most, self._balanced.limits)
        step = self._balanced.step
        if step is None:
            lot = by_margin
        else:
            lot = smaller if _place(self._balanced.seed, prompt_id) < step else others
        kept, trimmed = [], []
        for pair in sorted(lot, key=lambda pair: pair.key):
            left = self._left.get(pair.gaps, 0)
            (kept if left else trimmed).append(pair)
            self._left[pair.gaps] = max(left - 1, 0)
        return kept, trimmed


def trim(gaps: Mapping[Gaps, int], limits: Limits, max_trimmed: float) -> Counter[Gaps]:
    """Take pairs away until the mean gaps are within their tolerances.

    Args:
        gaps: gaps -> number of pairs.

    Returns:
        gaps -> number of pairs to take away.
    """
    kinds = sorted(kind for kind, number in gaps.items() if number)
    counts = np.array([gaps[kind] for kind in kinds], dtype=np.int64)
    scaled = np.array(kinds, dtype=np.float64).reshape(-1, len(limits.weights)) * limits.weights
    gone: Counter[Gaps] = Counter()
    for place, number in take_away(scaled, counts, limits.may_fall, int(max_trimmed * counts.sum())):
        gone[kinds[place]] += number
    return gone


def take_away(
    gaps: Array, counts: NDArray[np.int64], may_fall: Sequence[bool], most: int, title: str = ""
) -> list[tuple[int, int]]:
    """Greedy: each step takes the pairs without which the mean gaps are smallest together.

    A step takes one pair, of more than 1,000 a thousandth of what is left: the number of steps then grows
    with the share that goes and not with the number of pairs. The last step ends where the goal is reached.

    Args:
        gaps: [K, F], of each kind of pair, in units of their tolerances: all means within [-1, 1] is the
            goal. counts: [K], pairs of each kind. may_fall: [F], features whose mean may lie below -1. most:
            pairs to take at most. title: of a bar; none without it.

    Returns:
        (kind, number of pairs) in the order of their going; a kind may come several times.
    """
    left, total, number = counts.copy(), counts @ gaps, int(counts.sum())
    kinds, falling = np.flatnonzero(left), np.array(may_fall)
    held = _Held.of(gaps[kinds], falling)
    steps: list[tuple[int, int]] = []
    with Bar(title, most, "pairs at most") if title and most > _LOTS_TAKEN else nullcontext() as bar:
        while most > 0 and number and not _is_reached(total / number, falling):
            alive = left[kinds] > 0
            if alive.mean() < _MOSTLY:
                kinds, alive = kinds[alive], alive[alive]
                held = _Held.of(gaps[kinds], falling)
            sizes = held.sizes_without(total) / max(number - 1, 1) ** 2
            wanted = int(min(max(1, number // _LOTS_TAKEN), most))
            for place in _smallest(np.where(alive, sizes, np.inf), wanted):
                kind = int(kinds[place])
                taken = int(min(left[kind], wanted))
                steps.append((kind, taken))
                left[kind] -= taken
                total = total - taken * gaps[kind]
                number, most, wanted = number - taken, most - taken, wanted - taken
                if bar is not None:
                    bar.step(taken)
                if not wanted or not number or _is_reached(total / number, falling):
                    break
    return steps


@dataclass(frozen=True)
class _Held:
    """Gaps [K, F], laid out so that a step costs one product of a matrix and a vector."""

    may_fall: NDArray[np.bool_]
    fixed: Array
    falling: Array
    squares: Array

    @classmethod
    def of(cls, gaps: Array, may_fall: NDArray[np.bool_]) -> _Held:
        fixed = np.ascontiguousarray(gaps[:, ~may_fall])
        return cls(may_fall, fixed, gaps[:, may_fall].T.copy(), (fixed**2).sum(axis=1))

    def sizes_without(self, total: Array) -> Array:
        """[K], the squared size of `total` [F] without each kind; what may fall counts above 0 alone."""
        fixed = total[~self.may_fall]
        sizes = self.squares - self.fixed @ (2 * fixed)
        sizes += (fixed**2).sum()
        for column, value in zip(self.falling, total[self.may_fall], strict=True):
            sizes += np.maximum(value - column, 0.0) ** 2
        return sizes


def _is_reached(means: Array, may_fall: Sequence[bool] | NDArray[np.bool_]) -> bool:
    return bool(np.abs(_beyond(means, may_fall)).max() <= 1 + _ROUNDING)


def _smallest(values: Array, count: int) -> NDArray[np.int64]:
    """Places of the `count` smallest values, rounded to 12 digits; of equal ones the first come first."""
    rounded = np.round(values, 12)
    if count == 1:
        return np.array([np.argmin(rounded)])
    limit = np.partition(rounded, min(count, len(rounded)) - 1)[min(count, len(rounded)) - 1]
    places = np.flatnonzero(rounded <= limit)
    return places[np.argsort(rounded[places], kind="stable")][:count]


def _beyond(gaps: Array, may_fall: Sequence[bool] | NDArray[np.bool_]) -> Array:
    """Gaps [..., F] with 0 in the place of those that may be what they are."""
    return np.where(np.array(may_fall) & (gaps < 0), 0.0, gaps)


def _lots(pairs: Sequence[Pair], most: int, limits: Limits) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """The pairs that a prompt takes by margin alone, if it takes smaller answers, and if it does not.

    Of equal margins the pair with the smallest gaps comes first.
    """
    ranked = sorted(pairs, key=lambda pair: (-pair.margin, limits.size(pair.gaps), pair.key))
    smaller, others = (
        [pair for pair in ranked if limits.is_smaller(pair.gaps) is side] for side in (True, False)
    )
    return ranked[:most], (smaller + others)[:most], (others + smaller)[:most]


def _place(seed: int, prompt_id: str) -> int:
    """The fiftieth, 0 to 49, of a seeded place in [0, 1) that depends on nothing but the prompt."""
    place = int(hashlib.sha256(f"{seed}:{prompt_id}".encode()).hexdigest()[:13], 16) / 16**13
    return bisect_right(_EDGES, place)
