"""What the judge and the pairs stage said about themselves: can the preference data be believed?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from evals.report.svg import Figure, drawing, fit, line, marker, text, x_axis
from evals.report.text import short

_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "kappa": "Cohen's kappa",
    "invented_caught": "inventions caught",
    "true_kept": "true objects kept",
}
_COUNTS = {
    "true_kept": "truly there, judged there",
    "true_denied": "truly there, judged absent",
    "invented_kept": "invented, judged there",
    "invented_caught": "invented, judged absent",
}


def judge_panel(agreement: Mapping[str, Any]) -> Figure | None:
    """The judge's agreement with the annotations, each measure with its 95% interval."""
    measured = {key: agreement[key] for key in _NAMES if isinstance(agreement.get(key), Mapping)}
    if not measured:
        return None
    left, right, top, row = 130.0, 330.0, 12.0, 34.0
    bottom = top + row * len(measured)
    x = fit([0.0, 1.0], left, right, include=[0.0, 1.0, *(item["ci_low"] for item in measured.values())])
    parts = [x_axis(x, top, bottom, "agreement with the annotations, 1 is perfect")]
    rows = []
    for index, (key, item) in enumerate(measured.items()):
        y = top + row * (index + 0.5)
        shown = f"{item['value']:.2f} [{item['ci_low']:.2f}, {item['ci_high']:.2f}]"
        # Half right is what a coin gets, except for kappa, where chance is 0.
        chance = 0.0 if key == "kappa" else 0.5
        parts += [
            line(x(chance), y - 9, x(chance), y + 9, "margin"),
            line(x(item["ci_low"]), y, x(item["ci_high"]), y, "ci accent"),
            marker(0, x(item["value"]), y, "s-after fill", shown, 4.5),
            text(_NAMES[key], left - 12, y + 4, "name", "end"),
            text(shown, 436, y + 4, "value", "end"),
        ]
        rows.append([_NAMES[key], shown])
    counts = agreement.get("confusion") or {}
    rows += [[name, str(counts[key])] for key, name in _COUNTS.items() if key in counts]
    where = ""
    if "clusters" in agreement:
        where = f" {agreement['n']:,} claims about {agreement['clusters']:,} held-out pictures."
    return Figure(
        "judge", "Can the judge be believed?",
        f"How often the judge is right, where the truth is known.{where} The dashed ticks are chance.",
        drawing(440, bottom + 48, "Agreement of the judge with the annotations", *parts),
        ["measure", "value"], rows, note=_judge_name(agreement),
    )  # fmt: skip


def pairs_panel(metrics: Mapping[str, Any]) -> Figure | None:
    """Length gap and truth of the preference pairs."""
    rows = _pairs_rows(metrics)
    if not rows:
        return None
    return Figure(
        "pairs", "The preference pairs",
        "A gap in length between chosen and rejected teaches length; balancing brings it near zero.",
        Markup(""), ["measure", "value"], rows, open_table=True,
    )  # fmt: skip


def _judge_name(agreement: Mapping[str, Any]) -> str:
    judge = short(str(agreement.get("judge") or ""), 60)
    return f"Judge: {judge}, by {agreement.get('kind', 'claims')}." if judge else ""


def _pairs_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    if "pairs" in metrics:
        rows.append(
            ["pairs for training", f"{metrics['pairs']:,} from {metrics.get('prompts', 0):,} prompts"]
        )
    gap = metrics.get("length_gap") or {}
    for key, name in (("by_margin", "before balancing"), ("after", "after balancing")):
        if gap.get(key) is not None:
            shown = f"{gap[key]:+.2f}".replace("-", "−")
            rows.append([f"chosen longer than rejected, tokens, {name}", shown])
    for key, name in (("words", "words"), ("confirmed", "confirmed objects")):
        sides = [metrics.get(f"{side}_{key}") for side in ("chosen", "rejected")]
        if None not in sides:
            rows.append([f"{name}, chosen and rejected", f"{sides[0]:.1f} and {sides[1]:.1f}"])
    check = metrics.get("dev_check") or {}
    if check.get("pairs"):
        shares = [f"{100 * check[key] / check['pairs']:.0f}%" for key in ("right", "tied", "wrong")]
        rows.append(["on held-out pictures, chosen truly invents less / as much / more", " / ".join(shares)])
    return rows
