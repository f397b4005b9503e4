"""How often two raters say the same, and how much of that is beyond chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any


def agreement_of(pairs: Sequence[tuple[Hashable, Hashable]]) -> dict[str, Any]:
    """Two raters' verdicts on the same items.

    Kappa (Cohen 1960) is (po - pe) / (1 - pe): po is the share of equal verdicts, pe what the raters' own
    frequencies would give by chance. It is None where both only ever give one and the same verdict.

    Args:
        pairs: one an item; verdicts are compared for equality.

    Returns:
        `n`, and unless it is 0 `agreement` (percent) and `kappa`.

    >>> agreement_of([(1, 1), (1, 1), (2, 2), (2, 1)])
    {'n': 4, 'agreement': 75.0, 'kappa': 0.5}
    """
    if not pairs:
        return {"n": 0}
    share = sum(ours == theirs for ours, theirs in pairs) / len(pairs)
    first, second = (Counter(side) for side in zip(*pairs, strict=True))
    chance = sum(first[verdict] * second[verdict] for verdict in first) / len(pairs) ** 2
    kappa = None if chance == 1 else round((share - chance) / (1 - chance), 4)
    return {"n": len(pairs), "agreement": round(100 * share, 4), "kappa": kappa}
