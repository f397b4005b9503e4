"""Checks on lengths: of the answers, and of what they share at their beginning."""

from __future__ import annotations

from array import array
from itertools import takewhile

import numpy as np

from align.rows.schema import PreferenceRow
from align.rows.words import count_words, words_of
from data_tools.audit.findings import MOST_ROWS, Finding, Sides, shown
from data_tools.audit.reading import answers


class LengthCheck:
    """Whether chosen answers are longer or shorter: DPO learns length sooner than truth.

    Lengths are words (characters in scripts without spaces), tokens where every pair knows them.
    `longer_wins` is the accuracy of preferring the longer answer, ties half. When it matters: see
    `Gap.state`.
    """

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._words, self._tokens = Sides(), Sides()
        self._all_known = True

    def add(self, row: PreferenceRow) -> None:
        """Measure one pair."""
        self._ids.append(row.id)
        chosen, rejected = answers(row)
        self._words.add(count_words(chosen), count_words(rejected))
        first, second = row.meta.get("chosen_tokens"), row.meta.get("rejected_tokens")
        if self._all_known and isinstance(first, int) and isinstance(second, int):
            self._tokens.add(first, second)
        else:
            self._all_known = False

    def finding(self, seed: int) -> Finding:
        """The verdict."""
        gap = (self._tokens if self._all_known else self._words).gap(seed)
        side = "longer" if gap.wins["value"] > 0.5 or gap.mean["value"] > 0 else "shorter"
        return Finding(
            key="length",
            title="Length",
            state=gap.state,
            said=f"chosen minus rejected {shown(gap.mean, 1)} {'tokens' if self._all_known else 'words'}: "
            f"{gap.effect:.2f} standard deviations; preferring the longer answer would be right in "
            f"{gap.wins['value']:.0%} [{gap.wins['ci_low']:.0%}, {gap.wins['ci_high']:.0%}]",
            advice=""
            if gap.state == "good"
            else f"chosen answers are {side}: balance them (pairs.length_tolerance), or take pairs out until "
            "length tells nothing",
            numbers=gap.numbers("longer_wins") | {"unit": "tokens" if self._all_known else "words"},
            rows=[self._ids[place] for place in gap.order],
            values=gap.values,
            unit="chosen minus rejected",
        )


class PrefixCheck:
    """How many words chosen and rejected share at their beginning, which teach DPO nothing.

    Not a fault: shared beginnings concentrate the gradient on what differs, and are free for a trainer that
    computes them once. Pairs that share all but a few words are corrections.
    """

    def __init__(self) -> None:
        self._shares, self._lengths = array("d"), array("d")
        self._same: list[str] = []
        self._num_same = 0

    def add(self, row: PreferenceRow) -> None:
        """Compare one pair."""
        first, second = (words_of(text) for text in answers(row))
        common = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(first, second, strict=False)))
        longest = max(len(first), len(second))
        self._lengths.append(common)
        self._shares.append(common / max(longest, 1))
        if common == longest:
            self._num_same += 1
            if len(self._same) < MOST_ROWS:
                self._same.append(row.id)

    def finding(self) -> Finding:
        """The verdict."""
        shares, same = np.array(self._shares), self._num_same
        numbers = {
            "mean_words": round(float(np.mean(self._lengths)), 3),
            "mean_share": round(float(shares.mean()), 4),
            "same_words": same,
        }
        return Finding(
            key="prefix",
            title="Shared beginning",
            state="look" if same else "good",
            said=f"{numbers['mean_words']:.1f} words, {numbers['mean_share']:.0%} of the longer answer"
            + (f"; {same} pairs differ in punctuation or case alone" if same else ""),
            advice="take out the pairs whose words are the same" if same else "",
            numbers=numbers,
            rows=self._same,
            values=100 * shares,
            unit="percent of the longer answer",
        )
