"""How well a judge's verdicts on claims agree with the annotations: measured before pairs are built.

A judge at chance makes pairs of noise, and DPO on them still shortens answers, which looks like less
invention. So the pairs stage refuses a judge whose balanced accuracy may be near 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.progress import say
from align.rows.schema import ClaimKind

NUM_RESAMPLES = 2000
_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "kappa": "Cohen's kappa",
    "invented_caught": "invented claims caught",
    "true_kept": "true claims kept",
}


def confusion(claims: Sequence[tuple[str, bool, bool]]) -> NDArray[np.int64]:
    """Counts per cluster, in order of first appearance.

    Args:
        claims: (cluster, truly there, judge says it is there).

    Returns:
        [clusters, 4]: true kept, true denied, invented kept, invented caught.
    """
    rows: dict[str, list[int]] = {}
    for cluster, is_true, says_yes in claims:
        row = rows.setdefault(cluster, [0, 0, 0, 0])
        row[(0 if is_true else 2) + (0 if says_yes else 1)] += 1
    return np.array(list(rows.values()), dtype=np.int64).reshape(-1, 4)


def rates(counts: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Agreement measures from confusion counts.

    Args:
        counts: [..., 4] as `confusion` gives them, summed over clusters.

    Returns:
        Name -> [...]; nan where a denominator is 0. Balanced accuracy is the mean of `true_kept` and
        `invented_caught`; kappa is Cohen's, (po - pe) / (1 - pe).
    """
    a, b, c, d = (counts[..., i].astype(np.float64) for i in range(4))
    n = a + b + c + d
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = (a + d) / n
        by_chance = ((a + b) * (a + c) + (c + d) * (b + d)) / n**2
        kept, caught = a / (a + b), d / (c + d)
        kappa = (accuracy - by_chance) / (1 - by_chance)
    return {
        "accuracy": accuracy,
        "balanced_accuracy": (kept + caught) / 2,
        "kappa": kappa,
        "invented_caught": caught,
        "true_kept": kept,
    }


def measure_agreement(claims: Sequence[tuple[str, bool, bool]], seed: int) -> dict[str, Any]:
    """All measures with 95% percentile intervals of a bootstrap over clusters (images).

    Resamples in which a measure is undefined (say, no invented claim was drawn) are left out of its
    interval. A measure that is undefined on the data itself is None.
    """
    table = confusion(claims)
    total = table.sum(axis=0)
    found: dict[str, Any] = {
        "n": int(total.sum()),
        "clusters": len(table),
        "confusion": dict(
            zip(
                ("true_kept", "true_denied", "invented_kept", "invented_caught"), map(int, total), strict=True
            )
        ),
    }
    if not len(table):
        return found | {name: None for name in _NAMES}
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(table), size=(NUM_RESAMPLES, len(table)))
    resampled = rates(table[picks].sum(axis=1))
    for name, value in rates(total).items():
        drawn = resampled[name][np.isfinite(resampled[name])]
        if not math.isfinite(float(value)) or not len(drawn):
            found[name] = None
            continue
        low, high = np.percentile(drawn, [2.5, 97.5])
        found[name] = {
            "value": round(float(value), 4),
            "ci_low": round(float(low), 4),
            "ci_high": round(float(high), 4),
        }
    return found


def measure_kinds(
    claims: Mapping[ClaimKind, Sequence[tuple[str, bool, bool]]], seed: int
) -> dict[ClaimKind, dict[str, Any]]:
    """`measure_agreement` of each kind of claim."""
    return {kind: measure_agreement(found, seed) for kind, found in claims.items()}


def unfit_kinds(by_kind: Mapping[ClaimKind, Mapping[str, Any]], least: float) -> dict[ClaimKind, str]:
    """Kinds that the judge cannot be trusted with, and why.

    The lower bound of a kind's balanced accuracy must lie above `least`; where the annotations hold no right
    or no wrong ones, there is none. Presence always counts: `align pairs` refuses a judge that is near chance
    at it.
    """
    found: dict[ClaimKind, str] = {}
    for kind, measured in by_kind.items():
        balanced, count = measured["balanced_accuracy"], measured["n"]
        if kind == "presence" or not least or (balanced and balanced["ci_low"] > least):
            continue
        if not balanced:
            found[kind] = f"{count} annotated claims on dev, too few to tell"
            continue
        said = (
            f"{measured['accuracy']['value']:.0%} right on dev ({count} claims), balanced accuracy "
            f"{balanced['value']:.2f} [{balanced['ci_low']:.2f}, {balanced['ci_high']:.2f}]"
        )
        found[kind] = said + (": near chance" if balanced["value"] <= least else ": too few to tell")
    return found


def show_agreement(found: Mapping[str, Any]) -> None:
    """Print the measures on claims as a small table."""
    if not found["n"]:
        say(
            "  judge not measured: name annotated dev images in `truth`, or people's verdicts in `labels`; "
            "without, `align pairs` takes it with min_balanced_accuracy: 0 alone"
        )
        return
    by, on = ("labels", "images") if found.get("by_labels") else ("annotations", "dev images")
    say(f"  judge against the {by}: {found['n']} claims on {found['clusters']} {on}")
    _show_measures(found, _NAMES)
    counts = found["confusion"]
    say(f"    {'':<24} judge: there  judge: absent")
    say(f"    {'truly there':<24} {counts['true_kept']:>12} {counts['true_denied']:>14}")
    say(f"    {'invented':<24} {counts['invented_kept']:>12} {counts['invented_caught']:>14}")
    left_out = found.get("left_out", {})
    for kind, measured in found.get("by_kind", {}).items():
        if kind != "presence":
            note = "  (left out of the score)" if kind in left_out else ""
            say(f"  {kind}: {measured['n']} claims on {measured['clusters']} dev images{note}")
            _show_measures(measured, ("accuracy", "balanced_accuracy", "kappa"))


def show_decisions(found: Mapping[str, Any], what: str) -> None:
    """Print the measures of a judge's yes-or-no decisions, such as which answer is the better one."""
    if not found["n"] and not found.get("undecided"):
        say(f"  judge not measured: no labels, and no annotated dev images with {what}")
        return
    say(f"  judge against the labels: {found['n']} {what} on {found['clusters']} images")
    _show_measures(found, ("accuracy", "balanced_accuracy", "kappa"))
    if found.get("undecided"):
        say(
            f"    {found['undecided']} more are ties of the judge, and not in these numbers; with a tie as "
            f"half right the accuracy is {found['accuracy_ties_half']:.3f}"
        )
    if found.get("unjudged"):
        say(f"    {found['unjudged']} labels are of couples without a verdict")


def _show_measures(found: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        item = found[name]
        text = (
            "undefined"
            if item is None
            else f"{item['value']:.3f}  [{item['ci_low']:.3f}, {item['ci_high']:.3f}]"
        )
        say(f"    {_NAMES[name]:<24} {text}")
