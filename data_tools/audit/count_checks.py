"""Checks on what is learned sooner than truth, length apart: mentions, number words, repetition.

A preference that a count alone tells is a shortcut: DPO takes it before it looks at the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

from align.rows.schema import PreferenceRow
from data_tools.audit.findings import Finding, gap_of, interval, shown
from data_tools.audit.text_checks import answers
from data_tools.material.answer_counts import AnswerCounts, count_answer

_MOST_ROWS = 12
_OFTEN = 0.05
"""Share of answers that repeat themselves from which on it matters that nothing pushes back."""
_TELLING = 0.5
"""Share of pairs from which on `it repeats itself` would do as a reason to reject."""


def check_counts(rows: Sequence[PreferenceRow], seed: int) -> list[Finding]:
    """Mentions, number words and repetition, each text read once."""
    counts = [(count_answer(chosen), count_answer(rejected)) for chosen, rejected in map(answers, rows)]
    return [
        _check_count(rows, counts, "mentions", "Mentions of objects", "mention_tolerance", seed),
        _check_count(rows, counts, "number_words", "Number words", "number_word_tolerance", seed),
        check_repetition(rows, counts, seed),
    ]


def _check_count(
    rows: Sequence[PreferenceRow],
    counts: Sequence[tuple[AnswerCounts, AnswerCounts]],
    feature: str,
    title: str,
    key: str,
    seed: int,
) -> Finding:
    """Whether chosen answers have more or fewer: in standard deviations, as for length."""
    pairs = [(getattr(chosen, feature), getattr(rejected, feature)) for chosen, rejected in counts]
    gap = gap_of(pairs, seed)
    side = "more" if gap.mean["value"] > 0 else "fewer"
    return Finding(
        key=feature,
        title=title,
        state=gap.state,
        said=f"{gap.mean_chosen:.2f} in chosen and {gap.mean_rejected:.2f} in rejected answers, difference "
        f"{shown(gap.mean)}: {gap.effect:.2f} standard deviations; preferring the answer with more would be "
        f"right in {gap.larger_wins:.0%}",
        advice="" if gap.state == "good" else f"chosen answers have {side}: balance them (pairs.{key})",
        numbers=gap.numbers("more_wins"),
        rows=[rows[place].id for place in gap.order[:_MOST_ROWS]],
        values=gap.values,
        unit="chosen minus rejected",
    )


def check_repetition(
    rows: Sequence[PreferenceRow], counts: Sequence[tuple[AnswerCounts, AnswerCounts]], seed: int
) -> Finding:
    """Whether chosen answers name objects again ("a dog, a dog") more often than rejected ones.

    Bad where they surely do, by the interval of the difference. Worth a look where 5% of the answers repeat
    themselves and rejected ones no more often than chosen ones: nothing pushes back, and a policy drifts to
    what costs nothing; or where in half of the pairs and more the rejected one can be told by it.
    """
    pairs = [(chosen.repetition, rejected.repetition) for chosen, rejected in counts]
    gap = gap_of(pairs, seed)
    more, less = (sum(sign * value > 0 for value in gap.values) / len(rows) for sign in (1, -1))
    drift = interval([float(value > 0) - float(value < 0) for value in gap.values], seed)
    repeating = sum((chosen > 0) + (rejected > 0) for chosen, rejected in pairs) / (2 * len(rows))
    unopposed = repeating >= _OFTEN and drift["ci_high"] >= 0
    tells = less - more >= _TELLING
    state = "bad" if drift["ci_low"] > 0 else "look" if unopposed or tells else "good"
    advice = "balance repetition (pairs.repetition_tolerance, pairs.max_more_repeats)"
    if tells and not unopposed:
        advice = "repetition alone tells rejected answers: take pairs that differ in something else too"
    return Finding(
        key="repetition",
        title="Repetition",
        state=state,
        said=f"chosen repeats more often than rejected in {more:.0%} of the pairs, less often in {less:.0%}; "
        f"{repeating:.0%} of the answers name an object again",
        advice="" if state == "good" else advice,
        numbers=gap.numbers("more_wins")
        | {
            "chosen_more": round(more, 4),
            "chosen_less": round(less, 4),
            "repeating": round(repeating, 4),
            "drift": drift,
        },
        rows=[rows[place].id for place in gap.order if gap.values[place] > 0][:_MOST_ROWS],
        values=gap.values,
        unit="chosen minus rejected",
    )
