"""What DPO learns sooner than truth, counted in one answer: length, mentions, repetition, number words.

Pairs are balanced by these counts (`pair_balance`) and audited for them. They are read from the text alone,
so that they are the same for every judge.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from align.claims import Said, named_instances, read_text
from align.rows.words import count_words

_NUMBER_WORD = re.compile(
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|couple|dozen|[2-9]|\d{2,})\b", re.I
)


class AnswerCounts(NamedTuple):
    """Counts of one answer; tuples of them are subtracted place by place.

    Attributes:
        length: tokens where they are known, else words (characters in scripts without spaces).
        mentions: noun phrases that name an object, each time they do.
        repetition: objects that stand behind more than one number ("a dog, a dog, a sheep": 1).
        number_words: `two` and more, in words or digits; `a` and `one` come with every mention.
    """

    length: int
    mentions: int
    repetition: int
    number_words: int


FEATURES: tuple[str, ...] = AnswerCounts._fields
COUNTS = "answer_counts"
"""Where a verdict's `meta` keeps them, so that what reads it need not read the text again."""


def count_answer(text: str, length: int | None = None) -> AnswerCounts:
    """The counts of an answer.

    >>> count_answer("A dog, a dog and two sheep.")
    AnswerCounts(length=7, mentions=3, repetition=1, number_words=1)
    """
    return count_phrases(text, read_text(text), length)


def count_phrases(text: str, phrases: Sequence[Said], length: int | None = None) -> AnswerCounts:
    """As `count_answer`, for a text that was read already."""
    return AnswerCounts(
        length=count_words(text) if length is None else length,
        mentions=len(phrases),
        repetition=sum(named.repeated for named in named_instances(phrases).values()),
        number_words=len(_NUMBER_WORD.findall(text)),
    )
