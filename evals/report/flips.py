"""Samples that one checkpoint gets right and the next gets wrong, and the other way round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from align.rows.schema import Score
from evals.report.inventions import invented_in, mentions_of
from evals.report.load import Results

_RIGHT = ("correct", "accuracy", "right")
_WRONG = ("has_invented", "invented_any", "hallucinated")
# Values that are 0 on a row without a verdict.
_SCORED = ("scored", "rated", "answers")
# With more tasks than this, a task's parts are not told apart.
_MAX_TASKS_WITH_PARTS = 3


@dataclass(frozen=True)
class Flips:
    """Counts of samples by how the last two checkpoints did on them."""

    name: str
    gained: int
    lost: int
    both_right: int
    both_wrong: int


def count_flips(results: Results) -> list[Flips]:
    """One entry a task or, where they are few and have parts, a part; a caption is right when it invents
    nothing."""
    found = []
    with_parts = len(results.rows) <= _MAX_TASKS_WITH_PARTS
    for task in results.tasks:
        if task in results.apart:
            continue
        latter = results.index.get((task, results.after), {})
        parts: dict[str, list[tuple[bool, bool]]] = {}
        for row in results.rows.get(task, {}).get(results.before, []):
            other = latter.get(row.sample_id)
            one, two = right_in(results, task, row), right_in(results, task, other) if other else None
            if one is not None and two is not None:
                for part in (row.meta.get("subsets") if with_parts else None) or [""]:
                    parts.setdefault(str(part), []).append((one, two))
        label = results.label_of(task)
        found += [_count(f"{label} {part}".strip(), pairs) for part, pairs in sorted(parts.items())]
    return found


def right_in(results: Results, task: str, row: Score) -> bool | None:
    """Right or wrong, as the task's primary scorer and metric see it."""
    return is_right(row, results.mode_of(task), results.metric_of(task))


def is_right(row: Score, mode: str = "official", metric: str = "") -> bool | None:
    """Right or wrong, from the row's mentions or its own values; None when it has neither, or no verdict.

    Grades between 0 and 1 (annotators or judges who disagree) count as right from a half on.

    Args:
        metric: of the task; rows of a task that grades each answer have a value of that name.
    """
    if mentions_of(row, mode) is not None:
        return not invented_in(row, mode)
    prefix = "strict_" if mode == "strict" else ""

    def value(name: str) -> float | None:
        return row.values.get(prefix + name, row.values.get(name))

    if any(value(name) == 0 for name in _SCORED):
        return None
    for names, is_good in ((_RIGHT, True), (_WRONG, False), ((metric,), True)):
        for name in names:
            if (worth := value(name)) is not None:
                return (worth >= 0.5) == is_good
    return None


def _count(name: str, pairs: Sequence[tuple[bool, bool]]) -> Flips:
    tally: Mapping[tuple[bool, bool], int] = {
        key: sum(pair == key for pair in pairs)
        for key in ((False, True), (True, False), (True, True), (False, False))
    }
    return Flips(name, tally[False, True], tally[True, False], tally[True, True], tally[False, False])
