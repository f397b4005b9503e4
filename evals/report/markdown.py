"""The report's essentials as Markdown, for a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evals.report.findings import Finding
from evals.report.load import Results
from evals.report.metric import shown_name
from evals.report.table import (
    Row,
    about_unasked,
    caption_sections,
    health,
    main_rows,
    step_names,
    unasked_measures,
    unasked_words,
)
from evals.report.text import short
from evals.report.unasked import Unasked
from evals.report.verdict import Verdict

_ICONS = {"good": "✅", "bad": "❌", "warn": "⚠️", "neutral": "▫️"}
_MAX_QUOTED = 400
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|&])")


def render_markdown(title: str, results: Results, verdict: Verdict, unasked: Unasked) -> str:
    """Verdict, main table (primary metrics; the others folded away), unasked changes and health."""
    parts = [f"## {_plain(title)}", f"**{_plain(verdict.headline)}** {_plain(verdict.summary)}"]
    parts += ["\n".join(_finding(item) for item in verdict.findings)] if verdict.findings else []
    parts += [_apart(task, why, results) for task, why in results.apart.items()]
    header = ["task", "metric", *map(shown_name, results.checkpoints)]
    header += [f"{step_names(results)[0]} [95%]", "p"] if results.steps else []
    header += ["n", "clusters"]
    found = main_rows(results)
    rows = [_cells(row) for row in found]
    primary = [cells for cells, row in zip(rows, found, strict=True) if row.primary]
    others = [cells for cells, row in zip(rows, found, strict=True) if not row.primary]
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
    for section in caption_sections(results):
        table = _table(section.header, section.rows, num_text=2)
        parts.append(f"<details><summary>{section.title}</summary>\n\n{table}\n\n</details>")
    parts += _unasked(results, unasked) if unasked else []
    health_header, health_rows = health(results)
    if health_rows:
        table = _table(health_header, [[text for text, _ in row] for row in health_rows], num_text=2)
        parts.append(f"<details><summary>Health of the answers</summary>\n\n{table}\n\n</details>")
    return "\n\n".join(parts) + "\n"


def _finding(item: Finding) -> str:
    return f"- {_ICONS[item.tone]} **{_plain(item.title)}.** {_plain(item.text)}"


def _unasked(results: Results, unasked: Unasked) -> list[str]:
    """The tables of what changed unasked, and the examples folded away."""
    parts = ["### What changed most that nobody asked for", _plain(about_unasked(unasked, results))]
    for header, rows in (unasked_measures(results, unasked), unasked_words(results, unasked)):
        if rows:
            parts.append(_table(header, rows, num_text=1))
    names = [shown_name(name) for name in (results.before, results.after)]
    cases = [
        f"- {_plain(case.title)}\n"
        + "\n".join(
            f"  - {_plain(name)}: {_plain(short(text, _MAX_QUOTED)) or 'nothing'}"
            for name, text in zip(names, case.texts, strict=True)
        )
        for case in unasked.cases
    ]
    if cases:
        parts.append(
            "<details><summary>Examples, drawn at random</summary>\n\n" + "\n".join(cases) + "\n\n</details>"
        )
    return parts


def _apart(task: str, why: Sequence[str], results: Results) -> str:
    name = results.label_of(task)
    return f"⚠️ **{_plain(name)} cannot be compared**: {_plain('; '.join(why))}."


def _cells(row: Row) -> list[str]:
    """A line of the table, the last step's difference alone; of one checkpoint, the value's own interval."""
    values = [f"{value} {ends}".strip() if not row.steps else value for value, ends, _ in row.values]
    steps = [cell for step in row.steps[:1] for cell in (f"{step.delta} {step.interval}".strip(), step.p)]
    return [row.task, f"{row.metric} {row.arrow}".strip(), *values, *steps, row.n, row.clusters]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], num_text: int) -> str:
    rule = ["---" if index < num_text else "--:" for index in range(len(header))]
    return "\n".join("| " + " | ".join(map(_plain, cells)) + " |" for cells in (header, *rows)).replace(
        "\n", "\n|" + "|".join(rule) + "|\n", 1
    )


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\1", text.replace("\n", " "))
