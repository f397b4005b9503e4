"""What the judge and the pairs stage said about themselves, as small tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from evals.report.svg import Figure
from evals.report.text import short


def judge_panel(agreement: Mapping[str, Any]) -> Figure | None:
    """The judge's agreement with the truth, as measured where the truth is known."""
    rows = _flat(agreement)
    if not rows:
        return None
    return Figure(
        "judge", "Can the judge be believed?",
        "Agreement with the truth on held-out pictures; preference pairs are built from this judge.",
        Markup(""), ["measure", "value"], rows, open_table=True,
    )  # fmt: skip


def pairs_panel(metrics: Mapping[str, Any]) -> Figure | None:
    """What the preference pairs look like."""
    rows = _flat(metrics)
    if not rows:
        return None
    return Figure(
        "pairs", "The preference pairs",
        "A length gap between chosen and rejected teaches length, not truth; balancing brings it near zero.",
        Markup(""), ["measure", "value"], rows, open_table=True,
    )  # fmt: skip


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[list[str]]:
    rows: list[list[str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            rows += _flat(value, f"{name}: ")
        elif isinstance(value, bool):
            rows.append([name, "yes" if value else "no"])
        elif isinstance(value, float):
            rows.append([name, f"{value:.3f}".rstrip("0").rstrip(".")])
        elif isinstance(value, int | str):
            rows.append([name, short(str(value), 80)])
    return rows[:24]
