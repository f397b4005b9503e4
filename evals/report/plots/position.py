"""Where in a caption the inventions are."""

from __future__ import annotations

from evals.report.captions import Described, by_position
from evals.report.load import Results
from evals.report.plots.series import all_series, legend
from evals.report.svg import Figure, drawing, fit, polyline, text, y_axis

_WIDTH, _HEIGHT = 440.0, 318.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 424.0, 30.0, 270.0
# Shares of fewer mentions than this jump about; they stay in the table only.
_MIN_MENTIONS = 10


def by_sentence(results: Results, described: Described) -> Figure | None:
    """Share of mentions invented, by sentence (or by rank of the mention in one-sentence captions)."""
    captions, facts = described.captions, described.facts
    series = [item for item in all_series(results.checkpoints) if captions.get(item.key)]
    if not series:
        return None
    binned = {item.key: by_position(captions[item.key]) for item in series}
    unit = "sentence" if any(kind == "sentence" for kind, _ in binned.values()) else "mention"
    if unit == "sentence":
        series = [item for item in series if binned[item.key][0] == "sentence"]
    curves = {
        item.key: [
            (place, 100 * bad / total, total)
            for place, (bad, total) in enumerate(binned[item.key][1])
            if total
        ]
        for item in series
    }
    drawn = {key: [point for point in points if point[2] >= _MIN_MENTIONS] for key, points in curves.items()}
    num_places = max((point[0] + 1 for points in drawn.values() for point in points), default=0)
    if num_places < 2:
        return None
    step = (_RIGHT - _LEFT - 40) / (num_places - 1)
    y = fit(
        [point[1] for points in drawn.values() for point in points], _BOTTOM, _TOP, include=[0.0], ceiling=100
    )
    names = [_place(place, unit, num_places) for place in range(num_places)]
    parts = [y_axis(y, _LEFT, _RIGHT, "% of mentions that are invented")]
    parts += [
        text(name, _LEFT + 20 + place * step, _BOTTOM + 16, "tick", "middle")
        for place, name in enumerate(names)
    ]
    parts.append(text(f"{unit} in the caption", (_LEFT + _RIGHT) / 2, _BOTTOM + 35, "label", "middle"))
    for item in series:
        dots = [(_LEFT + 20 + place * step, y(share)) for place, share, _ in drawn[item.key]]
        parts.append(polyline(dots, f"curve {item.css}"))
        parts += [
            item.point(*dot, f"{item.name}, {unit} {names[place]}: {share:.1f}% of {total}")
            for dot, (place, share, total) in zip(dots, drawn[item.key], strict=True)
        ]
    rows = [
        [item.name, _place(place, unit, 6), f"{share:.1f}", str(total)]
        for item in series
        for place, share, total in curves[item.key]
    ]
    where = "" if facts.named == "never" else f" ({facts.label})"
    return Figure(
        f"position-{facts.kind}" if where else "position", f"Invention by {unit}{where}",
        "Inventions usually pile up towards the end, where the model runs on habit.",
        drawing(_WIDTH, _HEIGHT, f"Share of invented mentions by {unit}{where}", *parts),
        ["checkpoint", unit, "invented, %", "mentions"], rows, legend=legend(series),
        note=f"Places with fewer than {_MIN_MENTIONS} mentions are in the table only.",
    )  # fmt: skip


def _place(place: int, unit: str, num_places: int) -> str:
    return f"{place + 1}+" if place == 5 and num_places == 6 else str(place + 1)
