"""Training curves of the SFT and DPO stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evals.report.svg import Figure, drawing, fit, line, polyline, x_axis, y_axis

_WIDTH, _HEIGHT = 440.0, 250.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 424.0, 30.0, 202.0
# (key in the log, axis label, title, lead, reference line)
_CURVES = [
    ("loss", "loss, nats", "loss", "", None),
    (
        "rewards/accuracies",
        "share of pairs, %",
        "pairs ranked right",
        "Pairs whose chosen answer has the higher implicit reward; 50% is chance.",
        50.0,
    ),
    (
        "rewards/margins",
        "reward margin",
        "reward margin",
        "β times the log-ratio of chosen minus that of rejected: how far the policy has moved.",
        0.0,
    ),
]
_LN2 = 0.693


def training_curves(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Figure]:
    """A chart for each quantity that a stage's log has, in the order of the stages."""
    found = []
    for stage, log in logs.items():
        preference = any("rewards/margins" in entry for entry in log)
        for key, label, title, lead, reference in _CURVES:
            points = [
                (float(entry["step"]), float(entry[key])) for entry in log if key in entry and "step" in entry
            ]
            if key == "rewards/accuracies":
                points = [(step, 100 * value) for step, value in points]
            if len(points) < 2:
                continue
            if key == "loss":
                reference = _LN2 if preference else None
                lead = (
                    "Starts at ln 2 = 0.693, where policy and reference agree."
                    if preference
                    else "Mean over the answer's tokens."
                )
            found.append(
                _curve(
                    f"{stage.upper()}: {title}",
                    lead,
                    label,
                    points,
                    reference,
                    f"{stage}-{key.replace('/', '-')}",
                )
            )
    return found


def _curve(
    title: str,
    lead: str,
    label: str,
    points: Sequence[tuple[float, float]],
    reference: float | None,
    key: str,
) -> Figure:
    x = fit([point[0] for point in points], _LEFT, _RIGHT, include=[0.0], pad=0.0, round_ends=False)
    include = [] if reference is None else [reference]
    y = fit([point[1] for point in points], _BOTTOM, _TOP, include=include, pad=0.1)
    parts = [x_axis(x, _TOP, _BOTTOM, "optimizer step", grid=False), y_axis(y, _LEFT, _RIGHT, label)]
    if reference is not None:
        parts.append(line(_LEFT, y(reference), _RIGHT, y(reference), "margin"))
    parts.append(polyline([(x(a), y(b)) for a, b in points], "curve s-after"))
    thin = points[:: max(1, len(points) // 20)]
    if thin[-1] != points[-1]:
        thin = [*thin, points[-1]]
    return Figure(
        f"training-{key}", title, lead, drawing(_WIDTH, _HEIGHT, f"{title} over training steps", *parts),
        ["step", label], [[f"{a:.0f}", f"{b:.4f}"] for a, b in thin],
    )  # fmt: skip
