"""The report's essentials as Markdown, for a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evals.report.load import Results, shown_name
from evals.report.table import health, main_rows
from evals.report.verdict import Verdict

_ICONS = {"good": "✅", "bad": "❌", "warn": "⚠️", "neutral": "▫️"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|&])")


def render_markdown(title: str, results: Results, verdict: Verdict) -> str:
    """Verdict, main table (primary metrics; the others folded away) and health."""
    parts = [f"## {_plain(title)}", f"**{_plain(verdict.headline)}** {_plain(verdict.summary)}"]
    parts.append(
        "\n".join(
            f"- {_ICONS[item.tone]} **{_plain(item.title)}.** {_plain(item.text)}"
            for item in verdict.findings
        )
    )
    before, after = shown_name(results.before), shown_name(results.after)
    header = [
        "task",
        "metric",
        *map(shown_name, results.checkpoints),
        f"{after} − {before} [95%]",
        "p",
        "n",
        "clusters",
    ]
    rows = [
        [
            row.task,
            f"{row.metric} {row.arrow}".strip(),
            *(value for value, _ in row.values),
            f"{row.delta} {row.interval}".strip(),
            *(row.p, row.n, row.clusters),
        ]
        for row in main_rows(results)
    ]
    primary = [cells for cells, row in zip(rows, main_rows(results), strict=True) if row.primary]
    others = [cells for cells, row in zip(rows, main_rows(results), strict=True) if not row.primary]
    if primary:
        parts.append(_table(header, primary, num_text=2))
    if others:
        table = _table(header, others, num_text=2)
        parts.append(
            f"<details><summary>{len(others)} other metrics</summary>\n\n{table}\n\n</details>"
            if primary
            else table
        )
    parts.append(
        "↑ higher is better, ↓ lower. Shares in percent, differences in points, intervals paired by cluster. "
        "p is Holm-corrected; * is not."
    )
    health_header, health_rows = health(results)
    if health_rows:
        table = _table(health_header, [[text for text, _ in row] for row in health_rows], num_text=2)
        parts.append(f"<details><summary>Health of the answers</summary>\n\n{table}\n\n</details>")
    return "\n\n".join(parts) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], num_text: int) -> str:
    rule = ["---" if index < num_text else "--:" for index in range(len(header))]
    return "\n".join("| " + " | ".join(map(_plain, cells)) + " |" for cells in (header, *rows)).replace(
        "\n", "\n|" + "|".join(rule) + "|\n", 1
    )


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\1", text.replace("\n", " "))
