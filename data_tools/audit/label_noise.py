"""How many pairs prefer the wrong answer: by the annotations, or by the judge's known error rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.objects.mentions import Mode
from align.rows.schema import PreferenceRow
from data_tools.audit.findings import Finding, interval, shown
from data_tools.audit.text_checks import answers
from data_tools.material.claims import split_objects

_MOST_ROWS = 12


def check_noise(
    rows: Sequence[PreferenceRow],
    truth: Mapping[int, set[str]],
    judge: Mapping[str, Any] | None,
    mode: Mode,
    seed: int,
) -> Finding:
    """The share of pairs whose chosen answer truly invents more objects than the rejected one.

    With annotations it is counted. Without, and with a claims judge's `agreement.json`, it is estimated: the
    judge's error rates on dev say how likely a confirmed and a denied claim are invented; claims err
    independently, and what both answers claim cancels. Bad from 20% of the decided pairs on, a look from 10%.
    """
    known = [row for row in rows if row.meta.get("image_id") in truth]
    if known:
        return _counted(known, truth, mode, seed)
    rates = _error_rates(judge)
    claimed = [row for row in rows if "chosen_denied" in row.meta and "rejected_denied" in row.meta]
    if rates is None or not claimed:
        said = "needs annotations of the pictures (truth), or pairs of a claims judge and its folder (judge)"
        return Finding("label_noise", "Label noise", "unknown", said)
    shares = [expected_order(row.meta, *rates) for row in claimed]
    wrong, right = (float(np.mean([share[side] for share in shares])) for side in (0, 2))
    share = wrong / max(wrong + right, 1e-12)
    worst = np.argsort([-item[0] for item in shares], kind="stable")[:_MOST_ROWS]
    return _finding(
        share,
        f"by the judge's error rates {share:.0%} of the decided pairs prefer the answer that invents more "
        "(an estimate)",
        {"estimated": True, "wrong": round(wrong, 4), "right": round(right, 4), "share": round(share, 4)},
        [claimed[place].id for place in worst],
    )


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


def _counted(rows: Sequence[PreferenceRow], truth: Mapping[int, set[str]], mode: Mode, seed: int) -> Finding:
    def invented(text: str, image_id: int) -> int:
        return len(set(split_objects(text, mode)) - truth[image_id])

    gaps = [
        invented(answers(row)[1], row.meta["image_id"]) - invented(answers(row)[0], row.meta["image_id"])
        for row in rows
    ]
    wrong = [row.id for row, gap in zip(rows, gaps, strict=True) if gap < 0]
    decided = [float(gap < 0) for gap in gaps if gap]
    numbers: dict[str, Any] = {
        "estimated": False,
        "pairs": len(rows),
        "right": sum(gap > 0 for gap in gaps),
        "tied": sum(gap == 0 for gap in gaps),
        "wrong": len(wrong),
    }
    if not decided:
        said = "by the annotations both answers of every pair invent equally much"
        return Finding("label_noise", "Label noise", "look", said, numbers=numbers)
    numbers["share"] = interval(decided, seed)
    said = (
        f"by the annotations {len(wrong)} of {len(decided)} decided pairs prefer what invents more: "
        f"{shown(numbers['share'])}; {numbers['tied']} pairs are tied"
    )
    return _finding(numbers["share"]["value"], said, numbers, wrong[:_MOST_ROWS])


def _finding(share: float, said: str, numbers: dict[str, Any], rows: list[str]) -> Finding:
    state = "bad" if share >= 0.2 else "look" if share >= 0.1 else "good"
    advice = "" if state == "good" else "take a better judge, or a larger gap (pairs.min_gap)"
    return Finding("label_noise", "Label noise", state, said, advice, numbers, rows)
