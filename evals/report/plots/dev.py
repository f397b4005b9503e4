"""Dev curves of training stages: what the policy's answers became, step by step, and which step was kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from align.dev_check import DEV_LOG, DEV_SAMPLES, DIGITS
from evals.report.load import read_manifest_if_any
from evals.report.svg import (
    Figure,
    drawing,
    element,
    fit,
    line,
    marker,
    polyline,
    swatch,
    text,
    x_axis,
    y_axis,
)
from evals.report.text import short

_SHOWN = {
    "distinct_invention": "invented objects, %",
    "instance_precision": "named instances right, %",
    "object_recall": "objects named, %",
    "instance_recall": "instances named, %",
    "repeated_captions": "answers that repeat, %",
    "words": "words an answer",
    "vqa_accuracy": "questions right, %",
    "own_accuracy": "own questions right, %",
    "judge": "the judge at the endpoint, %",
    "heldout_loss": "loss on held-out rows, nats",
    "heldout_accuracy": "held-out pairs right, %",
    "heldout_margin": "reward margin of held-out pairs",
}
_COLUMNS, _WIDTH, _HEIGHT = 4, 270.0, 215.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 252.0, 40.0, 160.0
_LONGEST = 300


def dev_figures(folders: Mapping[str, Path | None]) -> list[Figure]:
    """A figure of curves for each stage that was checked, and one of the sample answers it kept.

    Args:
        folders: stage -> its folder; stages without a dev check are left out.
    """
    found: list[Figure] = []
    for stage, folder in folders.items():
        log = [] if folder is None else _lines(folder / DEV_LOG)
        if folder is None or len(log) < 2:
            continue
        kept = (read_manifest_if_any(folder).get("metrics") or {}).get("kept")
        found.append(_curves(stage, log, kept))
        samples = _lines(folder / DEV_SAMPLES)
        if samples:
            found.append(_answers(stage, samples, kept))
    return found


def _curves(stage: str, log: Sequence[Mapping[str, Any]], kept: Mapping[str, Any] | None) -> Figure:
    names = [name for name in _SHOWN if name in log[0]["all"]] or list(log[0]["all"])[:_COLUMNS]
    panels = []
    for number, name in enumerate(names):
        x, y = (number % _COLUMNS) * _WIDTH, (number // _COLUMNS) * _HEIGHT
        panel = _panel(name, log, kept)
        panels.append(element("g", panel, transform=f"translate({x:.0f},{y:.0f})"))
    rows = -(-len(names) // _COLUMNS)
    title = f"{stage.upper()}: answers on dev pictures"
    return Figure(
        f"dev-{stage}",
        title,
        f"The policy answered the same dev pictures while it trained. {_said(kept)}",
        drawing(min(len(names), _COLUMNS) * _WIDTH, rows * _HEIGHT, title, *panels),
        ["step", "measure", "value", "change", "interval", "kept"],
        [_row(entry, name, kept) for entry in log for name in entry["all"]],
        legend=[("s-after", swatch(2, "s-after fill"), "kept step")] if kept else [],
        note="Bars are paired intervals of the change since step 0, resampled by picture. Test data took no "
        "part in the choice.",
        wide=True,
    )


def _panel(name: str, log: Sequence[Mapping[str, Any]], kept: Mapping[str, Any] | None) -> Markup:
    points = [(float(entry["step"]), entry["all"][name]) for entry in log if name in entry["all"]]
    start, digits = points[0][1]["value"], DIGITS.get(name, 1)
    ends = [start + one[side] for _, one in points for side in ("ci_low", "ci_high")]
    x = fit(
        [step for step, _ in points], _LEFT, _RIGHT, include=[0.0], pad=0.0, num_ticks=3, round_ends=False
    )
    y = fit(ends, _BOTTOM, _TOP, pad=0.1, num_ticks=4)
    parts = [
        x_axis(x, _TOP, _BOTTOM, "optimizer step", grid=False),
        y_axis(y, _LEFT, _RIGHT, ""),
        text(_SHOWN.get(name, name), _LEFT - 32, 18, "label"),
        line(_LEFT, y(start), _RIGHT, y(start), "margin"),
    ]
    for step, one in points[1:]:
        parts.append(line(x(step), y(start + one["ci_low"]), x(step), y(start + one["ci_high"]), "path"))
    parts.append(polyline([(x(step), y(one["value"])) for step, one in points], "curve s-after"))
    for step, one in points:
        is_kept = kept is not None and kept.get("step") == step
        value = f"{one['value']:.{digits}f} ({one['delta']:+.{digits}f})"
        tip = f"step {step:.0f}: {value}{', kept' if is_kept else ''}"
        size = 6.0 if is_kept else 3.0
        parts.append(marker(2 if is_kept else 0, x(step), y(one["value"]), "s-after fill", tip, size))
    return Markup("").join(parts)


def _answers(stage: str, samples: Sequence[Mapping[str, Any]], kept: Mapping[str, Any] | None) -> Figure:
    order = list(dict.fromkeys(str(sample["id"]) for sample in samples))
    rows = [
        [
            str(number + 1),
            _step(sample["step"], kept),
            short(str(sample["prompt"]), _LONGEST),
            short(str(sample["answer"]), _LONGEST),
        ]
        for number, name in enumerate(order)
        for sample in samples
        if str(sample["id"]) == name
    ]
    return Figure(
        f"dev-answers-{stage}",
        f"{stage.upper()}: the same questions over steps",
        f"{len(order)} questions, drawn before training; all answers are in the stage's logs.",
        Markup(""),
        ["question", "step", "asked", "answer"],
        rows,
        wide=True,
    )


def _row(entry: Mapping[str, Any], name: str, kept: Mapping[str, Any] | None) -> list[str]:
    one, digits = entry["all"][name], DIGITS.get(name, 1)
    interval = f"[{one['ci_low']:+.{digits}f}, {one['ci_high']:+.{digits}f}]" if entry["step"] else ""
    is_kept = kept is not None and kept.get("step") == entry["step"]
    mark = "kept" if is_kept else "; ".join(entry.get("refused") or ())
    value, delta = f"{one['value']:.{digits}f}", f"{one['delta']:+.{digits}f}"
    return [str(entry["step"]), name, value, delta, interval, mark]


def _said(kept: Mapping[str, Any] | None) -> str:
    if kept is None:
        return "No rule chose among the steps: the last one is the result."
    if kept.get("nothing"):
        return f"Nothing of the training was kept, the result is the start: {kept.get('why')}."
    return f"Step {kept.get('step')} was kept: {kept.get('why')}."


def _step(step: Any, kept: Mapping[str, Any] | None) -> str:
    return f"{step}, kept" if kept is not None and kept.get("step") == step else str(step)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(entry) for entry in path.read_text(encoding="utf-8").splitlines() if entry.strip()]
