"""What the judge and the pairs stage said about themselves: can the preference data be believed?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
_SIDES = (
    ("words", "words"),
    ("confirmed", "confirmed objects"),
    ("true", "claims of every kind, confirmed"),
    ("false", "claims of every kind, denied"),
    ("mentions", "mentions of objects"),
    ("repetition", "objects named again"),
    ("number_words", "number words"),
)
"""What the pairs stage averages over either side, and how a reader calls it."""
_CELLS = ("true_kept", "true_denied", "invented_kept", "invented_caught")


@dataclass(frozen=True)
class _Kind:
    """What a kind of judge decides, in a reader's words.

    Attributes:
        names: of measures that are called otherwise than for claims.
        counts: of the cells of its confusion matrix, in the order of `_CELLS`.
    """

    unit: str
    truth: str
    counts: Mapping[str, str]
    names: Mapping[str, str] = field(default_factory=dict)


def _cells(*names: str) -> Mapping[str, str]:
    return dict(zip(_CELLS, names, strict=True))


_CLAIMS = _Kind(
    "claims", "the annotations",
    _cells("truly there, judged there", "truly there, judged absent", "invented, judged there",
           "invented, judged absent"),
)  # fmt: skip
_RATINGS = _Kind(
    "rated answers", "the labels",
    _cells("good, kept", "good, dropped", "bad, kept", "bad, dropped"),
    {"true_kept": "good ones kept", "invented_caught": "bad ones dropped"},
)  # fmt: skip
_CHOICES = _Kind(
    "pairs of answers", "the labels",
    _cells("first is better, first chosen", "first is better, second chosen",
           "second is better, first chosen", "second is better, second chosen"),
    {"true_kept": "right if first", "invented_caught": "right if second"},
)  # fmt: skip
_KINDS = {"claims": _CLAIMS, "oracle": _CLAIMS, "rating": _RATINGS, "pairwise": _CHOICES}


def _kind_of(agreement: Mapping[str, Any]) -> _Kind:
    """Of an ensemble, what its members judge: couples where some are undecided, ratings where exact ones are
    compared, else claims."""
    if agreement.get("kind") == "ensemble":
        return _CHOICES if "undecided" in agreement else _RATINGS if "exact" in agreement else _CLAIMS
    return _KINDS.get(str(agreement.get("kind", "claims")), _CLAIMS)


def judge_panel(agreement: Mapping[str, Any]) -> Figure | None:
    """The judge's agreement with the annotations, each measure with its 95% interval."""
    measured = {key: agreement[key] for key in _NAMES if isinstance(agreement.get(key), Mapping)}
    if not measured:
        return None
    kind = _kind_of(agreement)
    left, right, top, row = 130.0, 330.0, 12.0, 34.0
    bottom = top + row * len(measured)
    x = fit([0.0, 1.0], left, right, include=[0.0, 1.0, *(item["ci_low"] for item in measured.values())])
    parts = [x_axis(x, top, bottom, f"agreement with {kind.truth}, 1 is perfect")]
    rows = []
    for index, (key, item) in enumerate(measured.items()):
        y = top + row * (index + 0.5)
        shown = f"{item['value']:.2f} [{item['ci_low']:.2f}, {item['ci_high']:.2f}]"
        # Half right is what a coin gets, except for kappa, where chance is 0.
        chance = 0.0 if key == "kappa" else 0.5
        name = kind.names.get(key, _NAMES[key])
        parts += [
            line(x(chance), y - 9, x(chance), y + 9, "margin"),
            line(x(item["ci_low"]), y, x(item["ci_high"]), y, "ci accent"),
            marker(0, x(item["value"]), y, "s-after fill", shown, 4.5),
            text(name, left - 12, y + 4, "name", "end"),
            text(shown, 436, y + 4, "value", "end"),
        ]
        rows.append([name, shown])
    counts = agreement.get("confusion") or {}
    rows += [[kind.counts[key], str(counts[key])] for key in _CELLS if key in counts]
    rows += _other_rows(agreement)
    where = ""
    if "clusters" in agreement:
        where = f" {agreement['n']:,} {kind.unit} about {agreement['clusters']:,} held-out pictures."
    return Figure(
        "judge", "Can the judge be believed?",
        f"How often the judge is right, where the truth is known.{where} The dashed ticks are chance.",
        drawing(440, bottom + 48, f"Agreement of the judge with {kind.truth}", *parts),
        ["measure", "value"], rows, note=_judge_name(agreement),
    )  # fmt: skip


def _other_rows(agreement: Mapping[str, Any]) -> list[list[str]]:
    """What only some kinds of judge have: ratings that are the label itself, kinds of claims, ties, what
    order does."""
    rows = []
    exact = agreement.get("exact") or {}
    if exact.get("n"):
        rows.append(["rating is the label's very own", f"{exact['agreement']:.1f}% of {exact['n']:,}"])
    left_out = agreement.get("left_out") or {}
    for name, measured in (agreement.get("by_kind") or {}).items():
        if name != "presence":
            found = measured.get("balanced_accuracy")
            said = (
                f"{found['value']:.2f} [{found['ci_low']:.2f}, {found['ci_high']:.2f}]"
                if found
                else "unknown"
            )
            rows.append(
                [f"balanced accuracy, {name}", said + (", left out of the score" * (name in left_out))]
            )
    if "undecided" in agreement:
        rows.append(["called a tie", str(agreement["undecided"])])
    bias = agreement.get("order_bias") or {}
    if bias.get("first_place_share") is not None:
        rows.append(["chooses what stands first", f"{100 * bias['first_place_share']:.1f}%"])
    if bias.get("inconsistent") is not None:
        rows.append(["another choice in the other order", f"{100 * bias['inconsistent']:.1f}%"])
    return rows


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
    for key, name in _SIDES:
        sides = [metrics.get(f"{side}_{key}") for side in ("chosen", "rejected")]
        if None not in sides:
            digits = 1 if key in ("words", "confirmed") else 2
            rows.append([f"{name}, chosen and rejected", f"{sides[0]:.{digits}f} and {sides[1]:.{digits}f}"])
    check = metrics.get("dev_check") or {}
    if check.get("pairs"):
        shares = [f"{100 * check[key] / check['pairs']:.0f}%" for key in ("right", "tied", "wrong")]
        rows.append(["on held-out pictures, chosen truly invents less / as much / more", " / ".join(shares)])
    return rows
