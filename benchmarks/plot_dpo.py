"""A picture of what `benchmarks.dpo_vs_trl` measured: pairs/s over tuned TRL's, point by point.

    python -m benchmarks.plot_dpo runs/bench/dpo_vs_trl.json docs/images/dpo_vs_trl.svg

One row a point; a dot for the first epoch, a ring for the second, on a logarithmic axis with tuned TRL at 1.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.dpo_vs_trl import DEFAULT, TUNED

SHOWN = {
    DEFAULT: ("#8a8a8a", "TRL, default"),
    "ours: and split attention": ("#1f6fb2", "align, no stores"),
    "ours: and feature store": ("#c2571a", "align, both stores"),
}
LEFT, WIDTH, TOP, ROW = 220, 420, 64, 34
TICKS = (0.25, 0.5, 1, 2, 4, 8)


def picture(results: list[dict[str, Any]]) -> str:
    """The SVG; `results` is what `benchmarks.dpo_vs_trl` saves."""
    low, high = math.log(TICKS[0]), math.log(TICKS[-1])

    def across(ratio: float) -> float:
        return LEFT + WIDTH * (min(max(math.log(ratio), low), high) - low) / (high - low)

    height = TOP + ROW * len(results) + 36
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 30} {height}" '
        'font-family="system-ui, sans-serif" font-size="13" role="img" '
        'aria-label="Pairs a second over those of tuned TRL">',
        f'<rect width="100%" height="{height}" fill="#ffffff"/>',
        *_legend(),
    ]
    for tick in TICKS:
        x, bottom = across(tick), TOP + ROW * len(results)
        colour = "#555" if tick == 1 else "#ddd"
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{bottom}" stroke="{colour}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle" fill="#333">{tick:g}x</text>')
    for number, result in enumerate(results):
        parts += _row(result, TOP + ROW * number + ROW / 2, across)
    return "\n".join([*parts, "</svg>", ""])


def _legend() -> list[str]:
    parts, x = [], LEFT
    for colour, words in SHOWN.values():
        parts.append(f'<circle cx="{x}" cy="18" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{x + 10}" y="22" fill="#333">{escape(words)}</text>')
        x += 40 + 7 * len(words)
    note = "pairs/s over tuned TRL's; filled: 1st epoch, ring: 2nd"
    return [*parts, f'<text x="{LEFT}" y="44" fill="#666" font-size="12">{escape(note)}</text>']


def _row(result: Mapping[str, Any], y: float, across: Callable[[float], float]) -> list[str]:
    name = f"P={result['P']}, C={result['C']}, V={result['V'] // 1024}k"
    parts = [f'<text x="{LEFT - 14}" y="{y + 4}" text-anchor="end" fill="#333">{name}</text>']
    rows = result["variants"]
    for variant, (colour, _) in SHOWN.items():
        for epoch, fill in ((1, "none"), (0, colour)):
            base, own = (median(run["wall"][epoch] for run in rows[key]) for key in (TUNED, variant))
            parts.append(
                f'<circle cx="{across(base / own):.1f}" cy="{y}" r="{5 + epoch}" fill="{fill}" '
                f'stroke="{colour}" stroke-width="1.5"/>'
            )
    return parts


def main() -> None:
    """Read the JSON, write the SVG."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    options.picture.write_text(picture(json.loads(options.results.read_text())))


if __name__ == "__main__":
    main()
