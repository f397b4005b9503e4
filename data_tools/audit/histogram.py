"""A histogram as SVG without style attributes, so that the page's policy can forbid them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

_WIDTH, _HEIGHT, _BASE, _BINS = 560, 120, 96, 28


def histogram(values: Sequence[float] | NDArray[np.float64], unit: str) -> Markup:
    """Counts of values in equal bins between their 0.5% and 99.5% quantiles; the last bins have the rest.

    A vertical line marks 0 where it lies inside.
    """
    data = np.asarray(values, dtype=np.float64)
    edges = _edges(data)
    low, high = float(edges[0]), float(edges[-1])
    counts, _ = np.histogram(data.clip(low, high), bins=edges)
    width = _WIDTH / len(counts)
    tallest = max(int(counts.max()), 1)
    bars = []
    for place, count in enumerate(counts):
        height = round((_BASE - 6) * count / tallest, 1)
        tip = f"{_number(edges[place])} to {_number(edges[place + 1])}: {count}"
        bars.append(
            f'<rect class="bar" x="{place * width + 1:.1f}" y="{_BASE - height:.1f}" width="{width - 2:.1f}" '
            f'height="{height}"><title>{tip}</title></rect>'
        )
    if low < 0 < high:
        x = -low / (high - low) * _WIDTH
        bars.append(f'<line class="zero" x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="{_BASE}"/>')
    label = f"Histogram of {len(data)} pairs: {unit}, from {_number(low)} to {_number(high)}"
    ends = (
        f'<text x="0" y="{_HEIGHT - 8}">{_number(low)}</text>'
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{Markup.escape(unit)}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 8}" text-anchor="end">{_number(high)}</text>'
    )
    return Markup(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{Markup.escape(label)}">'
        f'{"".join(bars)}<line class="axis" x1="0" x2="{_WIDTH}" y1="{_BASE}" y2="{_BASE}"/>{ends}</svg>'
    )


def _edges(data: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges of the bins; whole numbers get bins of whole numbers, around them."""
    low, high = (float(value) for value in np.percentile(data, [0.5, 99.5]))
    if (data == np.round(data)).all():
        low, high = math.floor(low), math.ceil(high)
        step = math.ceil((high - low + 1) / _BINS)
        count = math.ceil((high - low + 1) / step)
        return low - 0.5 + step * np.arange(count + 1, dtype=np.float64)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, _BINS + 1)


def _number(value: float) -> str:
    digits = 0 if abs(value) >= 10 else 1 if abs(value) >= 1 else 2
    text = f"{value:.{digits}f}"
    return "0" if math.isclose(float(text), 0) else text.replace("-", "−")
