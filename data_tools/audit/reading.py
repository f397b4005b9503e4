"""Pairs as the checks see them: one by one, so that memory holds numbers and not rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from align.progress import Bar
from align.rows.parts import count_rows
from align.rows.quarantine import Quarantine
from align.rows.schema import PreferenceRow, read_rows


def answers(row: PreferenceRow) -> tuple[str, str]:
    """The texts of chosen and rejected."""
    return row.chosen[-1].text, row.rejected[-1].text


def prompt_text(row: PreferenceRow) -> str:
    """All turns before the answers, one a line."""
    return "\n".join(message.marked for message in row.prompt)


def each_pair(path: Path, bad: Quarantine) -> Iterator[PreferenceRow]:
    """Every sound row of a file with a bar; the others are put aside."""
    with Bar("reading pairs", count_rows(path), "pairs") as bar:

        def unsound(where: str, reason: str, raw: Any) -> None:
            bad.refuse(where, reason, raw)
            bar.step()

        for row in read_rows(PreferenceRow, path, unsound):
            yield row
            bar.step()


def rows_of(path: Path, ids: Collection[str]) -> dict[str, PreferenceRow]:
    """The rows of these ids; of several with one id the first."""
    wanted, found = set(ids), {}
    for row in read_rows(PreferenceRow, path, lambda where, reason, raw: None):
        if len(found) == len(wanted):
            break
        if row.id in wanted and row.id not in found:
            found[row.id] = row
    return found
