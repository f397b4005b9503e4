"""Words and phrases that the later checkpoint's descriptions took up or dropped.

A phrase counts once a description, however often it stands there, so that a change is a number of
descriptions that gained or lost it. With g gained and l lost, McNemar's z is (g - l) / sqrt(g + l), its test
the exact binomial one; of several descriptions of one picture the sum counts, so that pictures are the unit:

    z = sum(e) / sqrt(sum(e^2)), e = descriptions of a picture that gained the phrase, less those that lost it

Words of an invented object are not counted, on either side: that they become fewer was asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from align.scoring.stats import holm, mcnemar
from evals.report.captions import Caption

Phrase = tuple[str, ...]
"""Words in lower case, in order."""
LONGEST = 3
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_BREAK = re.compile(r"[.!?\n]")
# Descriptions that must have a phrase, on the side that has more: a share of all, and at least so many.
_MIN_SHARE, _MIN_COUNT = 0.01, 5
# A description is read no further than this.
_MAX_WORDS = 2000
# Phrases that overlap in words and gained or lost the same descriptions, by this share, are one finding.
_SAME = 0.7


@dataclass(frozen=True)
class PhraseChange:
    """A phrase and how many descriptions gained or lost it.

    Attributes:
        before, after: descriptions that have it, of `total`.
        z: see the module; above zero where more have it.
        p: exact, two-sided; `p_holm` corrected for all phrases that were tested.
        gained, lost: ids of the descriptions.
    """

    phrase: Phrase
    before: int
    after: int
    total: int
    z: float
    p: float
    p_holm: float
    gained: Sequence[str]
    lost: Sequence[str]

    @property
    def text(self) -> str:
        """The phrase with spaces."""
        return " ".join(self.phrase)


@dataclass(frozen=True)
class _Word:
    text: str
    start: int
    end: int
    sentence: int


def phrase_changes(before: Sequence[Caption], after: Sequence[Caption]) -> list[PhraseChange]:
    """All phrases that were tested, the greatest change first; one that stands only inside a longer one, in
    the same numbers of descriptions, is left out.

    Args:
        before, after: descriptions; those of a picture that only one side described are left out.
    """
    latter = {caption.sample_id: caption for caption in after}
    pairs = [(one, latter[one.sample_id]) for one in before if one.sample_id in latter]
    holders: dict[Phrase, tuple[set[int], set[int]]] = {}
    for place, pair in enumerate(pairs):
        for side, caption in enumerate(pair):
            for phrase in {phrase for phrase, _, _ in phrases_in(caption)}:
                holders.setdefault(phrase, (set(), set()))[side].add(place)
    floor = max(_MIN_COUNT, math.ceil(_MIN_SHARE * len(pairs)))
    holders = {phrase: sides for phrase, sides in holders.items() if max(map(len, sides)) >= floor}
    for part in _parts_of_longer(holders):
        del holders[part]
    changes = [(phrase, sides, _test(pairs, sides)) for phrase, sides in holders.items()]
    corrected = holm([p for _, _, (_, p) in changes])
    found = [
        PhraseChange(
            phrase, len(sides[0]), len(sides[1]), len(pairs), z, p, p_holm,
            gained=[pairs[place][0].sample_id for place in sorted(sides[1] - sides[0])],
            lost=[pairs[place][0].sample_id for place in sorted(sides[0] - sides[1])],
        )
        for (phrase, sides, (z, p)), p_holm in zip(changes, corrected, strict=True)
    ]  # fmt: skip
    return sorted(found, key=lambda item: (-abs(item.z), item.phrase))


def distinct_changes(changes: Sequence[PhraseChange], count: int) -> list[PhraseChange]:
    """The first `count`, without those that say again what a greater one of them says: they share a word, and
    gained and lost nearly the same descriptions."""
    chosen: list[PhraseChange] = []
    for item in changes:
        if len(chosen) == count:
            break
        if not any(_says_the_same(item, other) for other in chosen):
            chosen.append(item)
    return chosen


def phrases_in(caption: Caption) -> Iterator[tuple[Phrase, int, int]]:
    """Every phrase with its characters [start, end), one to three words of a sentence that name no invented
    object."""
    invented = [(int(item["start"]), int(item["end"])) for item in caption.mentions if item["invented"]]
    words = _words(caption.text, invented)
    for place, first in enumerate(words):
        if first is None:
            continue
        run: list[str] = []
        for word in words[place : place + LONGEST]:
            if word is None or word.sentence != first.sentence:
                break
            run.append(word.text)
            yield tuple(run), first.start, word.end


def _words(text: str, invented: Sequence[tuple[int, int]]) -> list[_Word | None]:
    """Words in order, None for one of an invented object."""
    found: list[_Word | None] = []
    sentence, at = 0, 0
    # Words come in order: of the spans that begin before a word's end, the furthest end decides.
    spans, reach = iter(sorted(invented)), 0
    following = next(spans, None)
    for match in _WORD.finditer(text):
        if len(found) == _MAX_WORDS:
            break
        sentence += _BREAK.search(text, at, match.start()) is not None
        at = match.end()
        while following is not None and following[0] < match.end():
            reach, following = max(reach, following[1]), next(spans, None)
        found.append(None if match.start() < reach else _Word(match.group().lower(), *match.span(), sentence))
    return found


def _parts_of_longer(holders: Mapping[Phrase, tuple[set[int], set[int]]]) -> set[Phrase]:
    """Phrases that stand in a longer one and have its counts: they never stand alone."""
    found: set[Phrase] = set()
    for phrase, sides in holders.items():
        for length in range(1, len(phrase)):
            for start in range(len(phrase) - length + 1):
                part = holders.get(phrase[start : start + length])
                if part is not None and [*map(len, part)] == [*map(len, sides)]:
                    found.add(phrase[start : start + length])
    return found


def _test(pairs: Sequence[tuple[Caption, Caption]], sides: tuple[set[int], set[int]]) -> tuple[float, float]:
    """z and p, see the module."""
    net: dict[str, int] = {}
    for sign, places in ((1, sides[1] - sides[0]), (-1, sides[0] - sides[1])):
        for place in places:
            cluster = pairs[place][0].cluster
            net[cluster] = net.get(cluster, 0) + sign
    squares = sum(value**2 for value in net.values())
    z = sum(net.values()) / math.sqrt(squares) if squares else 0.0
    return z, mcnemar(sum(value < 0 for value in net.values()), sum(value > 0 for value in net.values()))


def _says_the_same(one: PhraseChange, other: PhraseChange) -> bool:
    if (one.z > 0) != (other.z > 0) or not {*one.phrase} & {*other.phrase}:
        return False
    first, second = {*one.gained, *one.lost}, {*other.gained, *other.lost}
    return len(first & second) >= _SAME * len(first | second)
