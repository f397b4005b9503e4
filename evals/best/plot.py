"""The curve over n as a drawing that stands alone."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from evals.best.curve import Point
from evals.report.svg import Scale, drawing, element, fit, line, marker, polyline, text, x_axis, y_axis

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP = 560.0, 170.0, 60.0, 530.0, 34.0
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}.curve{fill:none;stroke:#0b63a5;stroke-width:2}"
    ".fill{fill:#0b63a5}.whisker{stroke:#0b63a5}@media(prefers-color-scheme:dark){text{fill:#ddd}"
    ".grid{stroke:#444}.curve,.whisker{stroke:#6db3f2}.fill{fill:#6db3f2}}"
)


def plot_curve(points: Sequence[Point], names: Sequence[str]) -> str:
    """A panel a measure, value over tokens generated a prompt; whiskers are the paired 95% interval of the
    difference from the first answer."""
    shown = [name for name in names if all(name in point.measures for point in points)]
    panels = [_panel(points, name, number * _HEIGHT) for number, name in enumerate(shown)]
    height = max(len(shown), 1) * _HEIGHT + 10
    picture = drawing(_WIDTH, height, "Best of n answers", element("style", Markup(_STYLE)), *panels)
    return str(picture).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def _panel(points: Sequence[Point], name: str, offset: float) -> Markup:
    top, bottom = offset + _TOP, offset + _HEIGHT - 40
    changes = [point.measures[name] for point in points]
    first = changes[0].value
    ends = [first + end for change in changes for end in (change.ci_low, change.ci_high)]
    x: Scale = fit([point.tokens for point in points], _LEFT, _RIGHT, include=[0.0])
    y: Scale = fit([*ends, *(change.value for change in changes)], bottom, top)
    parts = [x_axis(x, top, bottom, "tokens generated a prompt"), y_axis(y, _LEFT, _RIGHT, "")]
    parts.append(text(name.replace("_", " "), _LEFT, top - 12))
    parts.append(polyline([(x(p.tokens), y(c.value)) for p, c in zip(points, changes, strict=True)], "curve"))
    for point, change in zip(points, changes, strict=True):
        at = x(point.tokens)
        parts.append(line(at, y(first + change.ci_low), at, y(first + change.ci_high), "whisker"))
        ends = f"[{change.ci_low:+.1f}, {change.ci_high:+.1f}]"
        tip = f"best of {point.n}: {change.value:.1f} ({change.delta:+.1f} {ends})"
        parts.append(marker(0, at, y(change.value), "fill", tip, 4.0))
        parts.append(text(f"n={point.n}", at, y(change.value) - 9, anchor="middle"))
    return Markup("").join(parts)
