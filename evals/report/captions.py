"""What the captions' mentions say beyond the published rates: at equal length, by position, object by object.

Everything here works on the mentions that the score stage found in each description (objects, nouns, or what
a judge told), so it needs neither annotations nor vocabularies again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from align.rows.schema import Score
from evals.report.inventions import placed_in
from evals.report.load import Results
from evals.tasks.facts import Facts

_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Caption:
    """A caption with its mentions in the order of the text.

    Attributes:
        mentions: dicts of start, end (characters), category, invented, sentence (0 is the first).
    """

    sample_id: str
    cluster: str
    text: str
    mentions: Sequence[dict[str, Any]]

    @property
    def num_words(self) -> int:
        """Words, split at white space."""
        return len(_WORD.findall(self.text))

    @property
    def num_invented(self) -> int:
        """Mentions of objects that are not in the picture, repeats counting."""
        return sum(bool(mention["invented"]) for mention in self.mentions)

    @property
    def num_true(self) -> int:
        """Different objects named that are in the picture."""
        return len({mention["category"] for mention in self.mentions if not mention["invented"]})

    def cut(self, num_words: int) -> Caption:
        """The first words, with the mentions that lie wholly within them."""
        ends = [match.end() for match in _WORD.finditer(self.text)]
        end = ends[min(num_words, len(ends)) - 1] if num_words > 0 and ends else 0
        kept = [mention for mention in self.mentions if mention["end"] <= end]
        return replace(self, text=self.text[:end], mentions=kept)


@dataclass(frozen=True)
class Matched:
    """Two checkpoints' captions at equal length, with paired 95% intervals.

    Attributes:
        key: `share`, `words` or `objects`, see `match_lengths`.
        method: what was cut, in words.
        chair_before, chair_after, chair_delta, chair_low, chair_high: CHAIRi in percent, and points.
        true_before, true_after, true_low, true_high: different objects a caption names that are in the
            picture, and the interval of their difference.
        words_before, words_after: mean words of the captions as compared.
    """

    key: str
    method: str
    chair_before: float
    chair_after: float
    chair_delta: float
    chair_low: float
    chair_high: float
    true_before: float
    true_after: float
    true_low: float
    true_high: float
    words_before: float
    words_after: float

    @property
    def is_better(self) -> bool:
        """Certainly fewer inventions or more true objects, and not certainly worse in the other."""
        fewer_invented = self.chair_high < 0 and self.true_high >= 0
        more_true = self.true_low > 0 and self.chair_low <= 0
        return fewer_invented or more_true


@dataclass(frozen=True)
class Described:
    """The descriptions of one task by all checkpoints, and the last two at equal length.

    Attributes:
        task, facts: the task's name, and what is known of it.
        captions: checkpoint -> its descriptions; those without any are left out.
        words: checkpoint -> mean words.
        matched: see `match_lengths`; empty where there are no two to compare.
    """

    task: str
    facts: Facts
    captions: Mapping[str, Sequence[Caption]]
    words: Mapping[str, float]
    matched: Sequence[Matched]


def read_described(results: Results, seed: int) -> list[Described]:
    """For each kind of benchmark that looks for inventions in descriptions, its first task's."""
    found = []
    for task in results.main_tasks("invented"):
        rows, mode = results.rows.get(task, {}), results.mode_of(task)
        read = {name: read_captions(rows.get(name, ()), mode) for name in results.checkpoints}
        captions = {name: items for name, items in read.items() if items}
        matched: list[Matched] = []
        sides = {results.before, results.after}
        if len(sides) == 2 and sides <= captions.keys() and task not in results.apart:
            matched = match_lengths(captions[results.before], captions[results.after], seed)
        words = {name: mean_words(items) for name, items in captions.items()}
        if captions:
            found.append(Described(task, results.facts[task], captions, words, matched))
    return found


def read_captions(rows: Sequence[Score], mode: str = "official") -> list[Caption]:
    """The rows that are captions, with the mentions that the primary scorer found."""
    found = []
    for row in rows:
        mentions = placed_in(row, mode)
        if mentions is not None:
            ordered = sorted(mentions, key=lambda mention: mention["start"])
            found.append(Caption(row.sample_id, row.cluster, str(row.meta.get("text") or ""), ordered))
    return found


def match_lengths(before: Sequence[Caption], after: Sequence[Caption], seed: int) -> list[Matched]:
    """The same comparison at equal length, three ways, the one that decides first.

    - `share`: every caption of the side that writes more is cut by one and the same share, so that both
      sides have the same mean length. This is what saying less alone would do: it knows nothing of the
      picture. A checkpoint that only got shorter is no better than this.
    - `words`: both captions of a picture are cut to the words of the shorter one. Strict: when the
      longer caption's extra words are the invented ones, the cut removes them too.
    - `objects`: both keep as many object names as the caption with fewer of them.

    Returns:
        an empty list when no picture has captions from both.
    """
    latter = {caption.sample_id: caption for caption in after}
    pairs = [(caption, latter[caption.sample_id]) for caption in before if caption.sample_id in latter]
    if not pairs:
        return []
    words = [sum(side.num_words for side in sides) for sides in zip(*pairs, strict=True)]
    shares = [min(words) / count if count else 1.0 for count in words]
    longer = "earlier" if words[0] > words[1] else "later"
    cuts: list[tuple[str, str, list[tuple[Caption, Caption]]]] = [
        (
            "share",
            f"captions of the {longer} checkpoint cut by {100 - 100 * min(shares):.0f}%, to equal length",
            [
                (one.cut(round(shares[0] * one.num_words)), other.cut(round(shares[1] * other.num_words)))
                for one, other in pairs
            ],
        ),
        (
            "words",
            "both captions of a picture cut to the words of the shorter one",
            [_equal_words(*pair) for pair in pairs],
        ),
        (
            "objects",
            "both captions of a picture cut to the object names of the one with fewer",
            [_equal_objects(*pair) for pair in pairs],
        ),
    ]
    return [_compare(key, method, found, seed) for key, method, found in cuts]


def chair_i(captions: Sequence[Caption]) -> float:
    """Invented mentions over mentions, in percent; 0 when nothing is mentioned."""
    mentions = sum(len(caption.mentions) for caption in captions)
    return 100 * sum(caption.num_invented for caption in captions) / mentions if mentions else 0.0


def mean_words(captions: Sequence[Caption]) -> float:
    """Words per caption, split at white space."""
    return sum(caption.num_words for caption in captions) / len(captions) if captions else 0.0


def by_position(captions: Sequence[Caption], num_bins: int = 6) -> tuple[str, list[tuple[int, int]]]:
    """(invented, mentions) by position; the last bin holds all that follow.

    The position is the sentence, or, where captions are one sentence long, the rank of the mention.
    """
    single = all(
        int(mention.get("sentence") or 0) == 0 for caption in captions for mention in caption.mentions
    )
    counts = [[0, 0] for _ in range(num_bins)]
    for caption in captions:
        for rank, mention in enumerate(caption.mentions):
            place = min(rank if single else int(mention.get("sentence") or 0), num_bins - 1)
            counts[place][0] += bool(mention["invented"])
            counts[place][1] += 1
    while len(counts) > 1 and counts[-1][1] == 0:
        counts.pop()
    return ("mention" if single else "sentence"), [(invented, total) for invented, total in counts]


def _equal_words(one: Caption, other: Caption) -> tuple[Caption, Caption]:
    count = min(one.num_words, other.num_words)
    return one.cut(count), other.cut(count)


def _equal_objects(one: Caption, other: Caption) -> tuple[Caption, Caption]:
    count = min(len(one.mentions), len(other.mentions))
    return replace(one, mentions=one.mentions[:count]), replace(other, mentions=other.mentions[:count])


def _compare(key: str, method: str, pairs: Sequence[tuple[Caption, Caption]], seed: int) -> Matched:
    import numpy as np

    from align.scoring.stats import compare

    order = {name: index for index, name in enumerate(sorted({one.cluster for one, _ in pairs}))}
    # Per side and cluster [2, C, 4]: invented mentions, mentions, different true objects, captions.
    sums = np.zeros((2, len(order), 4))
    for pair in pairs:
        for side, caption in enumerate(pair):
            counts = [caption.num_invented, len(caption.mentions), caption.num_true, 1]
            sums[side, order[pair[0].cluster]] += counts
    ratios = [[side[:, :2], side[:, 2:]] for side in sums]
    chair, true = compare(ratios[0], ratios[1], [False, False], seed=seed)
    return Matched(
        key=key,
        method=method,
        chair_before=100 * chair.before,
        chair_after=100 * chair.after,
        chair_delta=100 * chair.delta,
        chair_low=100 * chair.ci_low,
        chair_high=100 * chair.ci_high,
        true_before=true.before,
        true_after=true.after,
        true_low=true.ci_low,
        true_high=true.ci_high,
        words_before=mean_words([one for one, _ in pairs]),
        words_after=mean_words([other for _, other in pairs]),
    )
