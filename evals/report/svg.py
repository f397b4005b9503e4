"""Small charts as SVG text. Classes carry the colours, so one drawing serves both colour schemes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

Value = str | float | int


@dataclass(frozen=True)
class Figure:
    """A chart with the words and the numbers that go with it.

    Attributes:
        key: the element id in the page.
        lead: one sentence that says how to read it.
        svg: the drawing; empty for a figure that is only a table.
        header, rows: the same data as a table, for those who cannot see or want the numbers.
        legend: (css class of the series, shape, name).
        note: method, in a sentence or two.
    """

    key: str
    title: str
    lead: str
    svg: Markup
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    legend: Sequence[tuple[str, Markup, str]] = ()
    note: str = ""
    wide: bool = False
    open_table: bool = False


@dataclass(frozen=True)
class Scale:
    """Linear map from data [low, high] to drawing [start, end], with round tick values."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float] = field(default=())

    def __call__(self, value: float) -> float:
        """Where a value lies in the drawing."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def fit(
    values: Sequence[float],
    start: float,
    end: float,
    *,
    include: Sequence[float] = (),
    pad: float = 0.12,
    floor: float | None = None,
    ceiling: float | None = None,
    num_ticks: int = 5,
    round_ends: bool = True,
) -> Scale:
    """A scale around the values, widened to round ticks.

    Args:
        include: data values that must be inside, 0 for bars.
        pad: share of the range left free on both sides.
        floor, ceiling: the scale never goes past these unless the data does.
        round_ends: whether the scale ends at ticks; otherwise where the data ends.
    """
    inside = [value for value in (*values, *include) if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(inside), max(inside)
    flat = high == low
    room = max(abs(high) * 0.1, 0.5) if flat else (high - low) * pad
    low = low if low in include else low - room
    high = high if high in include and not flat else high + room
    step = _round_step((high - low) / num_ticks)
    if round_ends:
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    if floor is not None:
        low = max(low, min(floor, *inside))
    if ceiling is not None:
        high = min(high, max(ceiling, *inside))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Scale(low, high, start, end, tuple(number * step for number in range(first, last + 1)))


def number(value: Value) -> str:
    """An attribute's value: one decimal at most, so that drawings are small and the same everywhere."""
    if isinstance(value, str):
        return value
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def element(tag: str, *children: str | Markup, **attributes: Value | None) -> Markup:
    """One element; `class_` is class, underscores are hyphens, children are escaped unless Markup."""
    words = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(number(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{words}>{Markup('').join(children)}</{tag}>")


def text(content: str, x: float, y: float, css: str = "", anchor: str = "start") -> Markup:
    """A line of text; `anchor` is start, middle or end."""
    return element(
        "text", content, x=x, y=y, class_=css or None, text_anchor=anchor if anchor != "start" else None
    )


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=css)


def rect(x: float, y: float, width: float, height: float, css: str, tip: str = "") -> Markup:
    """A bar with an optional tooltip."""
    children = [element("title", tip)] if tip else []
    return element("rect", *children, x=x, y=y, width=max(width, 0.0), height=height, rx=1.5, class_=css)


def polyline(points: Sequence[tuple[float, float]], css: str) -> Markup:
    """An open path through the points."""
    return element("polyline", points=" ".join(f"{number(x)},{number(y)}" for x, y in points), class_=css)


def marker(shape: int, x: float, y: float, css: str, tip: str = "", size: float = 5.0) -> Markup:
    """A point whose shape tells the series apart without colour: circle, square, diamond, triangle."""
    title = [element("title", tip)] if tip else []
    if shape % 4 == 0:
        return element("circle", *title, cx=x, cy=y, r=size, class_=css)
    half = size * 0.9
    outlines = {
        1: [(-half, -half), (half, -half), (half, half), (-half, half)],
        2: [(0, -size * 1.3), (size * 1.3, 0), (0, size * 1.3), (-size * 1.3, 0)],
        3: [(0, -size * 1.15), (size * 1.1, size * 0.85), (-size * 1.1, size * 0.85)],
    }
    points = " ".join(f"{number(x + dx)},{number(y + dy)}" for dx, dy in outlines[shape % 4])
    return element("polygon", *title, points=points, class_=css)


def swatch(shape: int, css: str) -> Markup:
    """A legend's marker."""
    return element(
        "svg",
        marker(shape, 7, 7, css, size=4.5),
        viewBox="0 0 14 14",
        width=14,
        height=14,
        aria_hidden="true",
    )


def x_axis(
    scale: Scale,
    top: float,
    bottom: float,
    label: str,
    show: Callable[[float], str] = lambda v: f"{v:g}",
    grid: bool = True,
) -> Markup:
    """Tick labels under `bottom`, light vertical lines from `top`, and the axis label with its unit."""
    parts = []
    for tick in scale.ticks:
        x = scale(tick)
        if grid:
            parts.append(line(x, top, x, bottom, "grid"))
        parts.append(text(show(tick), x, bottom + 16, "tick", "middle"))
    parts.append(text(label, (scale.start + scale.end) / 2, bottom + 35, "label", "middle"))
    return Markup("").join(parts)


def y_axis(
    scale: Scale, left: float, right: float, label: str, show: Callable[[float], str] = lambda v: f"{v:g}"
) -> Markup:
    """Tick labels left of `left`, light horizontal lines, and the label above the axis, level to read."""
    parts = []
    for tick in scale.ticks:
        y = scale(tick)
        parts.append(line(left, y, right, y, "grid"))
        parts.append(text(show(tick), left - 8, y + 4, "tick", "end"))
    parts.append(text(label, left - 32, scale.end - 14, "label"))
    return Markup("").join(parts)


def drawing(width: float, height: float, title: str, *parts: Markup) -> Markup:
    """The `<svg>` around the parts, with a name for screen readers."""
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        aria_label=title,
        class_="chart",
    )


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(max(rough, 1e-9)))
    for multiple in (1, 2, 2.5, 5, 10):
        if multiple * power >= rough * 0.999:
            return multiple * power
    return 10 * power
