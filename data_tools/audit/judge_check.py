"""What the judge stage measured of the judge that made the pairs: agreement and the bias of order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_tools.audit.findings import Finding, shown


def check_judge(judge: Mapping[str, Any] | None) -> Finding:
    """The judge's `agreement.json`: bad where the balanced accuracy may be at chance, a look below 0.7."""
    if judge is None:
        return Finding("judge", "Judge", "unknown", "needs the folder of the judge stage (judge)")
    measured, bias = judge.get("balanced_accuracy"), judge.get("order_bias")
    said, state = "not measured against labels or annotations", "unknown"
    if measured:
        state = "bad" if measured["ci_low"] <= 0.5 else "look" if measured["value"] < 0.7 else "good"
        said = f"{judge.get('judge', 'judge')}: balanced accuracy {shown(measured)}"
        if kappa := judge.get("kappa"):
            said += f", kappa {shown(kappa)}"
    if bias and bias.get("inconsistent") is not None:
        said += f"; {bias['inconsistent']:.0%} of the couples change their winner with the order"
        if bias["inconsistent"] > 0.3 and state == "good":
            state = "look"
    if left_out := judge.get("left_out"):
        said += f"; not trusted with {' and '.join(left_out)}"
    between = judge.get("between_judges") or {}
    for names, found in between.items():
        if found.get("kappa") is not None:
            said += f"; {names}: kappa {found['kappa']:.2f}"
    advice = "" if state in ("good", "unknown") else "take a better judge, or measure it on more dev images"
    return Finding("judge", "Judge", state, said, advice, dict(judge))
