"""Lines of `metrics.json` as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from align.progress import say
from evals.comparison.metric_line import MetricLine
from evals.comparison.scored import Scored


def show_metrics(metrics: Sequence[MetricLine], checkpoints: Sequence[str]) -> None:
    """Print the official and the primary lines as a table, without parts that were not asked."""
    shown = [
        row
        for row in metrics
        if row.n and (row.mode == "official" or row.primary) and not {*checkpoints} <= row.lacking
    ]
    titles = ["task", "split", "metric", *checkpoints, "delta", "95% interval", "p (Holm)"]
    table = [titles, *([*_cells(row, checkpoints)] for row in shown)]
    widths = [max(len(line[column]) for line in table) for column in range(len(titles))]
    for line in table:
        cells = [
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        say("  " + "  ".join(cells).rstrip())
    say("  * primary; shares in percent; delta is the last checkpoint minus the one before")


def show_thoughts(scored: Mapping[str, Mapping[str, Scored]]) -> None:
    """A line for each checkpoint whose answers had thoughts before them; nothing where none had."""
    for name, parts in scored.items():
        health = [part.health for part in parts.values()]
        thoughts, unclosed = (sum(getattr(one, key) for one in health) for key in ("thoughts", "unclosed"))
        if thoughts:
            total = sum(one.n for one in health)
            say(f"  {name}: {thoughts} of {total} answers had thoughts, which were not scored;")
            say(f"  {unclosed} of these do not end: there is no answer, they count as truncated")


def _cells(row: MetricLine, checkpoints: Sequence[str]) -> list[str]:
    has_change = row.delta is not None and not row.lacking & {*checkpoints[-2:]}
    return [
        row.task,
        row.split,
        row.metric + ("*" if row.primary else ""),
        *("–" if name in row.lacking else f"{row.values[name]:.1f}" for name in checkpoints),
        f"{row.delta:+.1f}" if has_change else "",
        f"[{row.ci_low:+.1f}, {row.ci_high:+.1f}]" if has_change else "",
        "" if row.p_holm is None else f"{row.p_holm:.3g}",
    ]
