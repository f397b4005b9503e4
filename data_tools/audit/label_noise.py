"""How many pairs prefer the wrong answer: by the annotations, or by the judge's known error rates."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.objects.mentions import Mode
from align.rows.schema import PreferenceRow
from data_tools.audit.findings import MOST_ROWS, Finding, interval, largest, shown
from data_tools.audit.reading import answers
from data_tools.material.claims import split_objects


class NoiseCheck:
    """The share of pairs whose chosen answer truly invents more objects than the rejected one.

    With annotations it is counted. Without, and with a claims judge's `agreement.json`, it is estimated: the
    judge's error rates on dev say how likely a confirmed and a denied claim are invented; claims err
    independently, and what both answers claim cancels. Bad from 20% of the decided pairs on, a look from 10%.
    """

    def __init__(self, truth: Mapping[int, set[str]], judge: Mapping[str, Any] | None, mode: Mode) -> None:
        self._truth, self._rates = truth, _error_rates(judge)
        self._mode: Mode = mode
        self._gaps, self._wrong_ids = array("i"), list[str]()
        self._num_wrong = 0
        self._claimed: list[str] = []
        self._shares = array("d")

    def add(self, row: PreferenceRow) -> None:
        """Look at one pair."""
        image_id = row.meta.get("image_id")
        if isinstance(image_id, int | str) and image_id in self._truth:
            chosen, rejected = (self._invented(text, image_id) for text in answers(row))
            self._gaps.append(rejected - chosen)
            if rejected < chosen:
                self._num_wrong += 1
                if len(self._wrong_ids) < MOST_ROWS:
                    self._wrong_ids.append(row.id)
        elif self._rates is not None and "chosen_denied" in row.meta and "rejected_denied" in row.meta:
            self._claimed.append(row.id)
            self._shares.extend(expected_order(row.meta, *self._rates))

    def _invented(self, text: str, image_id: Any) -> int:
        return len(set(split_objects(text, self._mode)) - self._truth[image_id])

    def finding(self, seed: int) -> Finding:
        """The verdict."""
        if self._gaps:
            return self._counted(seed)
        if not self._claimed:
            said = (
                "needs annotations of the pictures (truth), or pairs of a claims judge and its folder (judge)"
            )
            return Finding("label_noise", "Label noise", "unknown", said)
        shares = np.array(self._shares).reshape(-1, 3)
        wrong, _, right = (float(mean) for mean in shares.mean(axis=0))
        share = wrong / max(wrong + right, 1e-12)
        return _finding(
            share,
            f"by the judge's error rates {share:.0%} of the decided pairs prefer the answer that invents "
            f"more "
            "(an estimate)",
            {"estimated": True, "wrong": round(wrong, 4), "right": round(right, 4), "share": round(share, 4)},
            [self._claimed[place] for place in largest(shares[:, 0])],
        )

    def _counted(self, seed: int) -> Finding:
        gaps = np.array(self._gaps)
        numbers: dict[str, Any] = {
            "estimated": False,
            "pairs": len(gaps),
            "right": int((gaps > 0).sum()),
            "tied": int((gaps == 0).sum()),
            "wrong": self._num_wrong,
        }
        decided = (gaps[gaps != 0] < 0).astype(np.float64)
        if not len(decided):
            said = "by the annotations both answers of every pair invent equally much"
            return Finding("label_noise", "Label noise", "look", said, numbers=numbers)
        numbers["share"] = interval(decided, seed)
        said = (
            f"by the annotations {self._num_wrong} of {len(decided)} decided pairs prefer what invents more: "
            f"{shown(numbers['share'])}; {numbers['tied']} pairs are tied"
        )
        return _finding(numbers["share"]["value"], said, numbers, self._wrong_ids)


def expected_order(
    meta: Mapping[str, Any], invented_if_confirmed: float, invented_if_denied: float
) -> tuple[float, float, float]:
    """Probability that chosen truly invents (more than, as many as, fewer than) rejected.

    The number of invented claims of an answer is a sum of independent coins, one a claim: the distribution of
    their difference is a convolution. Claims of both answers are about one picture and cancel.
    """
    sides = []
    for side in ("chosen", "rejected"):
        claims = dict.fromkeys(meta.get(f"{side}_confirmed", []), invented_if_confirmed)
        sides.append(claims | dict.fromkeys(meta.get(f"{side}_denied", []), invented_if_denied))
    chosen, rejected = (
        _sum_of_coins([p for name, p in own.items() if name not in other])
        for own, other in (sides, sides[::-1])
    )
    joint = np.outer(chosen, rejected)
    more, fewer = float(np.tril(joint, -1).sum()), float(np.triu(joint, 1).sum())
    return more, 1 - more - fewer, fewer


def _sum_of_coins(chances: Sequence[float]) -> NDArray[np.float64]:
    found = np.ones(1)
    for chance in chances:
        found = np.convolve(found, [1 - chance, chance])
    return np.asarray(found, dtype=np.float64)


def _error_rates(judge: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """(P(invented | confirmed), P(invented | denied)) from a claims judge's confusion on dev images."""
    counts = (judge or {}).get("confusion")
    if (judge or {}).get("kind") not in ("claims", "ensemble") or not counts:
        return None
    confirmed = counts["true_kept"] + counts["invented_kept"]
    denied = counts["true_denied"] + counts["invented_caught"]
    if not confirmed or not denied:
        return None
    return counts["invented_kept"] / confirmed, counts["invented_caught"] / denied


def _finding(share: float, said: str, numbers: dict[str, Any], rows: list[str]) -> Finding:
    state = "bad" if share >= 0.2 else "look" if share >= 0.1 else "good"
    advice = "" if state == "good" else "take a better judge, or a larger gap (pairs.min_gap)"
    return Finding("label_noise", "Label noise", state, said, advice, numbers, rows)
