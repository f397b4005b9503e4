"""Checks on the texts of pairs alone: lengths, how much chosen and rejected share, duplicates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import takewhile

import numpy as np

from align.rows.schema import PreferenceRow
from data_tools.audit.findings import Finding, gap_of, shown
from data_tools.decontaminate.shingles import words_of

_MOST_ROWS = 12


def answers(row: PreferenceRow) -> tuple[str, str]:
    """The texts of chosen and rejected."""
    return row.chosen[-1].text, row.rejected[-1].text


def lengths_of(row: PreferenceRow) -> tuple[float, float]:
    """Tokens of both answers where the row knows them, else words."""
    chosen, rejected = row.meta.get("chosen_tokens"), row.meta.get("rejected_tokens")
    if isinstance(chosen, int) and isinstance(rejected, int):
        return float(chosen), float(rejected)
    return float(len(answers(row)[0].split())), float(len(answers(row)[1].split()))


def check_length(rows: Sequence[PreferenceRow], seed: int) -> Finding:
    """Whether chosen answers are longer or shorter: DPO learns length sooner than truth.

    The gap counts in standard deviations of the answers' lengths: bad from 0.5 on, worth a look from 0.2.
    `longer_wins` is the accuracy of preferring the longer answer, ties half.
    """
    gap = gap_of([lengths_of(row) for row in rows], seed)
    side = "longer" if gap.mean["value"] > 0 else "shorter"
    return Finding(
        key="length",
        title="Length",
        state=gap.state,
        said=f"chosen minus rejected {shown(gap.mean, 1)} (words, or tokens where known): {gap.effect:.2f} "
        f"standard deviations; preferring the longer answer would be right in {gap.larger_wins:.0%}",
        advice=""
        if gap.state == "good"
        else f"chosen answers are {side}: balance them (pairs.length_tolerance)",
        numbers=gap.numbers("longer_wins"),
        rows=[rows[place].id for place in gap.order[:_MOST_ROWS]],
        values=gap.values,
        unit="chosen minus rejected",
    )


def check_prefix(rows: Sequence[PreferenceRow]) -> Finding:
    """How many words chosen and rejected share at their beginning, which teach DPO nothing.

    Not a fault: shared beginnings concentrate the gradient on what differs, and are free for a trainer that
    computes them once. Pairs that share all but a few words are corrections.
    """
    shares, lengths = [], []
    for row in rows:
        first, second = (words_of(text) for text in answers(row))
        common = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(first, second, strict=False)))
        lengths.append(common)
        shares.append(common / max(len(first), len(second), 1))
    same = [row.id for row, share in zip(rows, shares, strict=True) if share == 1.0]
    numbers = {
        "mean_words": round(float(np.mean(lengths)), 3),
        "mean_share": round(float(np.mean(shares)), 4),
        "same_words": len(same),
    }
    state = "look" if same else "good"
    return Finding(
        key="prefix",
        title="Shared beginning",
        state=state,
        said=f"{numbers['mean_words']:.1f} words, {numbers['mean_share']:.0%} of the longer answer"
        + (f"; {len(same)} pairs differ in punctuation or case alone" if same else ""),
        advice="take out the pairs whose words are the same" if same else "",
        numbers=numbers,
        rows=same[:_MOST_ROWS],
        values=[100 * share for share in shares],
        unit="percent of the longer answer",
    )


def check_duplicates(rows: Sequence[PreferenceRow]) -> Finding:
    """Pairs that occur twice, pairs that contradict each other, and pictures or answers that occur often.

    A contradiction is a prompt (with its pictures) where one answer is preferred to another and, directly or
    by other pairs, also the other to it: a cycle. Repeats weigh a pair twice; contradictions are label noise.
    """
    seen: Counter[tuple[str, str, str]] = Counter()
    repeated: list[str] = []
    edges: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for row in rows:
        prompt = " | ".join([*row.images, *(message.marked for message in row.prompt)])
        key = (prompt, *answers(row))
        seen[key] += 1
        if seen[key] > 1:
            repeated.append(row.id)
        else:
            edges[prompt].append((answers(row)[0], answers(row)[1], row.id))
    contradicting = [row_id for found in edges.values() for row_id in _in_cycles(found)]
    pictures = Counter(name for row in rows for name in set(row.images))
    answers_used = Counter(text for row in rows for text in set(answers(row)))
    share = (len(repeated) + len(contradicting)) / len(rows)
    state = "bad" if contradicting and share > 0.01 else "look" if share else "good"
    numbers = {
        "repeated": len(repeated),
        "contradicting": len(contradicting),
        "pictures": len(pictures),
        "most_pairs_of_a_picture": max(pictures.values(), default=0),
        "most_pairs_of_an_answer": max(answers_used.values(), default=0),
    }
    return Finding(
        key="duplicates",
        title="Duplicates and contradictions",
        state=state,
        said=f"{len(repeated)} repeated pairs, {len(contradicting)} in contradictions; "
        f"{len(pictures)} pictures, at most {numbers['most_pairs_of_a_picture']} pairs of one",
        advice="take repeated and contradicting pairs out" if share else "",
        numbers=numbers,
        rows=[*contradicting, *repeated][:_MOST_ROWS],
    )


def _in_cycles(edges: Sequence[tuple[str, str, str]]) -> list[str]:
    """Ids of the (better, worse, id) preferences that lie on a cycle."""
    below: dict[str, set[str]] = defaultdict(set)
    for better, worse, _ in edges:
        below[better].add(worse)

    def reaches(start: str, goal: str) -> bool:
        seen, todo = {start}, [start]
        while todo:
            for other in below.get(todo.pop(), ()):
                if other == goal:
                    return True
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        return False

    return [row_id for better, worse, row_id in edges if reaches(worse, better)]
