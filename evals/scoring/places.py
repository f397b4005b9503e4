"""Where in an answer its object words stand, for whoever asks about length and position later."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable
from typing import Any

from align.objects.plurals import singular_in

_WORD = re.compile(r"\S+")
_NAME = re.compile(r"[A-Za-z]+")
_SENTENCE = re.compile(r"[.!?]+[\"')\]]*\s+|\n+")


def describe_places(text: str, found: Iterable[tuple[int, int, str, bool]]) -> list[dict[str, Any]]:
    """A scored row's mentions.

    Args:
        found: first character, end, category, whether it is invented.

    Returns:
        for each: start, end (characters), text, category, invented, sentence (0 is the first) and word (how
        many words precede it).
    """
    ends = [match.end() for match in _SENTENCE.finditer(text)]
    words = [match.start() for match in _WORD.finditer(text)]
    return [
        {
            "start": start,
            "end": end,
            "text": text[start:end],
            "category": category,
            "invented": invented,
            "sentence": bisect_right(ends, start),
            "word": bisect_left(words, start),
        }
        for start, end, category, invented in found
    ]


def count_words(text: str) -> int:
    """Words, at white space."""
    return len(_WORD.findall(text))


def first_places(text: str, words: Collection[str]) -> dict[str, tuple[int, int]]:
    """Where each word or pair of words first stands, in any number; those that don't stand there are left
    out.

    >>> first_places("Two dogs, a wine glass.", {"dog", "wine glass", "cat"})
    {'dog': (4, 8), 'wine glass': (12, 22)}
    """
    names = list(_NAME.finditer(text))
    found: dict[str, tuple[int, int]] = {}
    for place in range(len(names)):
        for length in (2, 1):
            part = names[place : place + length]
            word = singular_in(" ".join(name.group().lower() for name in part), words)
            if word is not None and len(part) == length:
                found.setdefault(word, (part[0].start(), part[-1].end()))
    return found
