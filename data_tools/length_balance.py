"""Choose pairs so that chosen and rejected answers are equally long on average.

A judge of invented objects prefers short answers, and DPO learns shortness sooner than truth. RLAIF-V
(Yu et al. 2024, arXiv 2405.17220) searches a shortening ratio from 0 to 1 in steps of 0.02 until the
mean lengths agree. Here a ratio r means: prompts whose seeded place in [0, 1) lies below r take a
pair whose chosen answer is the shorter one first, the others take one whose chosen answer is not shorter
first. What no ratio can balance is trimmed, the largest length gaps first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STEP = 0.02


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
    def key(self) -> tuple[str, str, str]:
        """What sorts pairs the same way on every machine."""
        return (self.prompt_id, self.chosen_id, self.rejected_id)

    @property
    def rank(self) -> tuple[float, int, tuple[str, str, str]]:
        """Sorts a prompt's pairs: by margin, then by smallest length gap."""
        return (-self.margin, abs(self.gap), self.key)


@dataclass(frozen=True)
class Balanced:
    """Chosen pairs and how they came about; gaps are mean tokens of chosen minus rejected.

    Attributes:
        before: gap when every prompt takes its best-margin pairs, lengths ignored.
        searched: gap at the best ratio.
        after: gap after trimming.
        trimmed: the pairs that trimming took away.
    """

    pairs: list[Pair]
    trimmed: list[Pair]
    ratio: float
    before: float
    searched: float
    after: float


def balance(
    eligible: Mapping[str, Sequence[Pair]], most: int, tolerance: float | None, max_trimmed: float, seed: int
) -> Balanced:
    """Take at most `most` pairs a prompt with mean gap within `tolerance` tokens, if it can be done.

    Args:
        eligible: prompt id -> its eligible pairs.
        tolerance: None leaves lengths as they come.
        max_trimmed: largest share of pairs that trimming may take; the rest of the gap then stays.

    Returns:
        The pairs, sorted; `after` tells whether the tolerance was reached.
    """
    plain = [pair for prompt_id in sorted(eligible) for pair in sorted(eligible[prompt_id], key=_rank)[:most]]
    before = mean_gap(plain)
    if tolerance is None:
        return Balanced(plain, [], 0.0, before, before, before)
    ratio, pairs = _search(eligible, most, seed)
    kept, trimmed = trim(pairs, tolerance, max_trimmed)
    return Balanced(
        pairs=sorted(kept, key=lambda pair: pair.key),
        trimmed=trimmed,
        ratio=round(ratio, 2),
        before=before,
        searched=mean_gap(pairs),
        after=mean_gap(kept),
    )


def _search(eligible: Mapping[str, Sequence[Pair]], most: int, seed: int) -> tuple[float, list[Pair]]:
    """The ratio whose pairs have the smallest mean gap, and these pairs.

    A prompt takes either of two lots of pairs, so that a ratio's sum is the one before it and the differences
    of the prompts that change over.
    """
    lots: list[tuple[float, list[Pair], list[Pair]]] = []
    total = 0
    for prompt_id in sorted(eligible):
        ranked = sorted(eligible[prompt_id], key=_rank)
        shorter, others = ([pair for pair in ranked if (pair.gap < 0) is side] for side in (True, False))
        lots.append((_place(seed, prompt_id), (shorter + others)[:most], (others + shorter)[:most]))
        total += sum(pair.gap for pair in lots[-1][2])
    order = iter(sorted(lots, key=lambda lot: lot[0]))
    waiting = next(order, None)
    best = (abs(total), 0.0)
    for step in range(1, round(1 / STEP) + 1):
        while waiting is not None and waiting[0] < step * STEP:
            total += sum(pair.gap for pair in waiting[1]) - sum(pair.gap for pair in waiting[2])
            waiting = next(order, None)
        best = min(best, (abs(total), step * STEP))
    _, ratio = best
    return ratio, [pair for place, *lot in lots for pair in lot[0 if place < ratio else 1]]


def trim(pairs: Sequence[Pair], tolerance: float, max_trimmed: float) -> tuple[list[Pair], list[Pair]]:
    """Take away the pairs that pull hardest in the mean gap's direction until it is within `tolerance`.

    Returns:
        (kept, taken away).
    """
    order = sorted(pairs, key=lambda pair: pair.key)
    # The widest gap of either sign stands last; what was taken from one list is skipped in the other.
    widest = {
        sign: sorted(range(len(order)), key=lambda place: (sign * order[place].gap, order[place].key))
        for sign in (1, -1)
    }
    taken: list[int] = []
    gone: set[int] = set()
    total, most = sum(pair.gap for pair in order), int(max_trimmed * len(pairs))
    while len(gone) < min(most, len(order)) and abs(total) > tolerance * (len(order) - len(gone)):
        side = widest[1 if total > 0 else -1]
        while side[-1] in gone:
            side.pop()
        worst = side.pop()
        taken.append(worst)
        gone.add(worst)
        total -= order[worst].gap
    kept = [pair for place, pair in enumerate(order) if place not in gone]
    return kept, [order[place] for place in taken]


def mean_gap(pairs: Sequence[Pair]) -> float:
    """Mean tokens of chosen minus rejected; 0 without pairs."""
    return sum(pair.gap for pair in pairs) / len(pairs) if pairs else 0.0


def _rank(pair: Pair) -> tuple[float, int, tuple[str, str, str]]:
    return pair.rank


def _place(seed: int, prompt_id: str) -> float:
    """A seeded place in [0, 1) that depends on nothing but the prompt."""
    return int(hashlib.sha256(f"{seed}:{prompt_id}".encode()).hexdigest()[:13], 16) / 16**13
