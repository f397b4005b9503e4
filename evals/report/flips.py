"""Samples that one checkpoint gets right and the next gets wrong, and the other way round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.schema import Score
from evals.report.load import Results, task_label


@dataclass(frozen=True)
class Flips:
    """Counts of samples by how the last two checkpoints did on them."""

    name: str
    gained: int
    lost: int
    both_right: int
    both_wrong: int


def count_flips(results: Results) -> list[Flips]:
    """One entry a task or, where it has parts, a part; a caption is right when it invents nothing."""
    found = []
    for task in sorted(results.rows):
        mode = results.mode_of(task)
        latter = results.index.get((task, results.after), {})
        parts: dict[str, list[tuple[bool, bool]]] = {}
        for row in results.rows[task].get(results.before, []):
            other = latter.get(row.sample_id)
            one, two = is_right(row, mode), is_right(other, mode) if other else None
            if one is not None and two is not None:
                for part in row.meta.get("subsets") or [""]:
                    parts.setdefault(str(part), []).append((one, two))
        label = task_label(task, next((line.type for line in results.metrics if line.task == task), task))
        found += [_count(f"{label} {part}".strip(), pairs) for part, pairs in sorted(parts.items())]
    return found


def is_right(row: Score, mode: str = "official") -> bool | None:
    """Right or wrong, from the row's mentions or its own value; None when it has neither.

    VQA accuracies between 0 and 1 (annotators who disagree) count as right from a half on.
    """
    found = mentions_of(row, mode)
    if found is not None:
        return not any(mention["invented"] for mention in found)
    prefix = "strict_" if mode == "strict" else ""
    for key in ("correct", "accuracy"):
        if prefix + key in row.values:
            return row.values[prefix + key] >= 0.5
    return None


def mentions_of(row: Score, mode: str = "official") -> list[dict[str, Any]] | None:
    """The object mentions that the primary scorer found in a caption; None when the row is no caption."""
    found = row.meta.get("mentions_strict" if mode == "strict" else "mentions")
    return found if isinstance(found, list) else None


def _count(name: str, pairs: Sequence[tuple[bool, bool]]) -> Flips:
    tally: Mapping[tuple[bool, bool], int] = {
        key: sum(pair == key for pair in pairs)
        for key in ((False, True), (True, False), (True, True), (False, False))
    }
    return Flips(name, tally[False, True], tally[True, False], tally[True, True], tally[False, False])
