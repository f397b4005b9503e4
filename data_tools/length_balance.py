"""Choose pairs so that chosen and rejected answers are equally long on average.

A judge of invented objects prefers short answers, and DPO learns shortness sooner than truth. RLAIF-V
(Yu et al. 2024, arXiv 2405.17220) searches a shortening ratio from 0 to 1 in steps of 0.02 until the
mean lengths agree. Here a ratio r means: prompts whose seeded place in [0, 1) lies below r take a
pair whose chosen answer is the shorter one first, the others take one whose chosen answer is not shorter
first. What no ratio can balance is trimmed, the largest length gaps first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
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
    places = {prompt_id: _place(seed, prompt_id) for prompt_id in eligible}
    plain = _take(eligible, most, lambda prompt_id, pair: 0)
    before = mean_gap(plain)
    if tolerance is None:
        return Balanced(plain, [], 0.0, before, before, before)
    best: tuple[float, float, list[Pair]] | None = None
    for step in range(round(1 / STEP) + 1):
        ratio = step * STEP

        def rank(prompt_id: str, pair: Pair, ratio: float = ratio) -> int:
            wants_shorter = places[prompt_id] < ratio
            return int((pair.gap < 0) != wants_shorter)

        pairs = _take(eligible, most, rank)
        gap = mean_gap(pairs)
        if best is None or abs(gap) < best[0] - 1e-12:
            best = (abs(gap), ratio, pairs)
    assert best is not None
    kept, trimmed = trim(best[2], tolerance, max_trimmed)
    return Balanced(
        pairs=sorted(kept, key=lambda pair: pair.key),
        trimmed=trimmed,
        ratio=round(best[1], 2),
        before=before,
        searched=mean_gap(best[2]),
        after=mean_gap(kept),
    )


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


def _take(eligible: Mapping[str, Sequence[Pair]], most: int, rank: Callable[[str, Pair], int]) -> list[Pair]:
    """The first `most` pairs of each prompt by rank, then by margin, then by smallest length gap."""
    taken: list[Pair] = []
    for prompt_id in sorted(eligible):
        order = sorted(
            eligible[prompt_id],
            key=lambda pair: (rank(pair.prompt_id, pair), *pair.rank),
        )
        taken += order[:most]
    return taken


def _place(seed: int, prompt_id: str) -> float:
    """A seeded place in [0, 1) that depends on nothing but the prompt."""
    return int(hashlib.sha256(f"{seed}:{prompt_id}".encode()).hexdigest()[:13], 16) / 16**13
