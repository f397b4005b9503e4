"""Checks on what is learned sooner than truth, length apart: mentions, number words, repetition.

A preference that a count alone tells is a shortcut: DPO takes it before it looks at the picture. Objects and
number words are read in English; of other answers these checks say that they know nothing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from align.rows.schema import PreferenceRow
from align.rows.words import is_latin
from data_tools.audit.findings import Finding, Sides, interval, largest, shown
from data_tools.audit.reading import answers
from data_tools.material.answer_counts import count_answer

_OFTEN = 0.05
"""Share of answers that repeat themselves from which on it matters that nothing pushes back."""
_TELLING = 0.5
"""Share of pairs from which on `it repeats itself` would do as a reason to reject."""
_READ = 0.5
"""Share of answers in Latin letters below which nothing can be said of mentions and numbers."""
_TITLES = {"mentions": "Mentions of objects", "number_words": "Number words"}
_KEYS = {"mentions": "mention_tolerance", "number_words": "number_word_tolerance"}


class CountChecks:
    """Mentions, number words and repetition, each text read once."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._counts = {name: Sides() for name in (*_TITLES, "repetition")}
        self._latin = 0
        self._naming = 0

    def add(self, row: PreferenceRow) -> None:
        """Count one pair."""
        self._ids.append(row.id)
        texts = answers(row)
        chosen, rejected = map(count_answer, texts)
        for name, sides in self._counts.items():
            sides.add(getattr(chosen, name), getattr(rejected, name))
        self._latin += sum(map(is_latin, texts))
        self._naming += (chosen.mentions > 0) + (rejected.mentions > 0)

    def findings(self, seed: int) -> list[Finding]:
        """One each."""
        found = [self._count("mentions", seed), self._count("number_words", seed), self._repetition(seed)]
        latin = self._latin / (2 * len(self._ids))
        if latin < _READ:
            said = (
                f"objects and numbers are read in English: {1 - latin:.0%} of the answers are in "
                f"other scripts"
            )
            return [_unread(finding, said) for finding in found]
        if not self._naming:
            said = "no answer names an object that is known (COCO's, in English)"
            return [_unread(finding, said) if finding.key != "number_words" else finding for finding in found]
        return found

    def _count(self, feature: str, seed: int) -> Finding:
        """Whether chosen answers have more or fewer: as for length."""
        gap = self._counts[feature].gap(seed)
        side = "more" if gap.mean["value"] > 0 else "fewer"
        return Finding(
            key=feature,
            title=_TITLES[feature],
            state=gap.state,
            said=f"{gap.mean_chosen:.2f} in chosen and {gap.mean_rejected:.2f} in rejected answers, "
            f"difference "
            f"{shown(gap.mean)}: {gap.effect:.2f} standard deviations; preferring the answer with more "
            f"would be "
            f"right in {gap.wins['value']:.0%}",
            advice=""
            if gap.state == "good"
            else f"chosen answers have {side}: balance them (pairs.{_KEYS[feature]})",
            numbers=gap.numbers("more_wins"),
            rows=[self._ids[place] for place in gap.order],
            values=gap.values,
            unit="chosen minus rejected",
        )

    def _repetition(self, seed: int) -> Finding:
        """Whether chosen answers name objects again ("a dog, a dog") more often than rejected ones.

        Bad where they surely do, by the interval of the difference. Worth a look where 5% of the answers
        repeat themselves and rejected ones no more often than chosen ones: nothing pushes back, and a policy
        drifts to what costs nothing; or where in half of the pairs and more the rejected one can be told by
        it.
        """
        sides = self._counts["repetition"]
        gap = sides.gap(seed)
        more, less = (float((sign * gap.values > 0).mean()) for sign in (1, -1))
        drift = interval(np.sign(gap.values), seed)
        repeating = float(((sides.chosen > 0).mean() + (sides.rejected > 0).mean()) / 2)
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
            said=f"chosen repeats more often than rejected in {more:.0%} of the pairs, less often in "
            f"{less:.0%}; "
            f"{repeating:.0%} of the answers name an object again",
            advice="" if state == "good" else advice,
            numbers=gap.numbers("more_wins")
            | {
                "chosen_more": round(more, 4),
                "chosen_less": round(less, 4),
                "repeating": round(repeating, 4),
                "drift": drift,
            },
            rows=[self._ids[place] for place in largest(gap.values) if gap.values[place] > 0],
            values=gap.values,
            unit="chosen minus rejected",
        )


def _unread(finding: Finding, said: str) -> Finding:
    return replace(finding, state="unknown", said=said, advice="", rows=[], values=())
