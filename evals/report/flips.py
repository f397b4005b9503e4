"""Samples that one checkpoint gets right and the next gets wrong, and the other way round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    """One entry a task and split; a caption is right when it invents nothing."""
    found = []
    for task in sorted(results.rows):
        before = results.rows[task].get(results.before, [])
        latter = {row.sample_id: row for row in results.rows[task].get(results.after, [])}
        splits: dict[str, list[tuple[bool, bool]]] = {}
        for row in before:
            other = latter.get(row.sample_id)
            one, two = is_right(row), is_right(other) if other else None
            if one is not None and two is not None:
                splits.setdefault(split_of(row), []).append((one, two))
        found += [_count(task_label(task, split), pairs) for split, pairs in sorted(splits.items())]
    return found


def is_right(row: Score) -> bool | None:
    """Right or wrong, from the row's mentions or its `correct` value; None when it is neither.

    VQA accuracies between 0 and 1 (annotators who disagree) count as right from a half on.
    """
    mentions = row.meta.get("mentions")
    if isinstance(mentions, list):
        return not any(mention["invented"] for mention in mentions)
    for key in ("correct", "accuracy", "score"):
        if key in row.values:
            return row.values[key] >= 0.5
    return None


def split_of(row: Score) -> str:
    """The row's split or kind of question."""
    return str(row.meta.get("split") or row.meta.get("kind") or "")


def _count(name: str, pairs: Sequence[tuple[bool, bool]]) -> Flips:
    tally: Mapping[tuple[bool, bool], int] = {
        key: sum(pair == key for pair in pairs) for key in ((False, True), (True, False), (True, True), (False, False))
    }
    return Flips(name, tally[False, True], tally[True, False], tally[True, True], tally[False, False])
