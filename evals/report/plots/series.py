"""How a checkpoint looks in every chart: one colour, one shape, one name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from evals.report.metric import shown_name
from evals.report.svg import marker, swatch


@dataclass(frozen=True)
class Series:
    """A checkpoint's look; `css` is the class that holds its colour."""

    key: str
    name: str
    css: str
    shape: int

    def point(self, x: float, y: float, tip: str = "", hollow: bool = False, size: float = 5.0) -> Markup:
        """The checkpoint's marker."""
        return marker(self.shape, x, y, f"{self.css} {'hollow' if hollow else 'fill'}", tip, size)


def all_series(checkpoints: Sequence[str]) -> list[Series]:
    """The last checkpoint has the accent colour, the one before the second, earlier ones the quiet ones."""
    last = len(checkpoints) - 1
    found = []
    for index, key in enumerate(checkpoints):
        css = "s-after" if index == last else ("s-before" if index == last - 1 else f"s-early{index % 3}")
        shape = 2 if index == last else (1 if index == last - 1 else (0, 3)[index % 2])
        found.append(Series(key, shown_name(key), css, shape))
    return found


def legend(series: Sequence[Series]) -> list[tuple[str, Markup, str]]:
    """Legend entries of the series."""
    return [(item.css, swatch(item.shape, f"{item.css} fill"), item.name) for item in series]
