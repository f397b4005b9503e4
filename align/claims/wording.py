"""Repetition and grammar of an answer, by its words alone.

Repeated n-grams after Welleck et al. 2019 (arXiv:1908.04319, section 3, seq-rep-n: the share of an answer's
n-grams that stood in it before); distinct-n after Li et al. 2016 (arXiv:1510.03055, section 5: distinct
n-grams over all of them), here within each answer and summed over answers.
"""

from __future__ import annotations

import re
from typing import Literal

from align.claims.vocabulary import NUMBERS

Mark = Literal["doubled word", "article", "punctuation", "dangling", "no end", "unbalanced"]

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_DOUBLED = re.compile(r"\b([^\W\d_]+)\s+\1\b", re.IGNORECASE)
_MAY_DOUBLE = frozenset(("that", "had", "very", "so", "really", "is", "many", "bye", "ha", "no"))
_A_VOWEL = re.compile(
    r"\ba\s+(?!(?:uni|use|usa|usu|uti|ure|ura|uku|ub|ufo|eu|ewe|one|once|ouija)[a-z]*)[aeiou][a-z]+"
)
_AN_CONSONANT = re.compile(r"\ban\s+(?!(?:hour|honest|honou?r|heir|herb|x-|s-|m-|f-|l-|n-|r-)[a-z]*)"
                           r"[b-df-hj-np-tv-z][a-z]{2,}")  # fmt: skip
_LEFT_ALONE = re.compile(r"[,;]\s*[,;.]|\b(?:and|or|an|the|with|of)\s*[,;.!?]|(?<![.!?])\s,\s")
_DANGLING = re.compile(r"(?:[,;:(-]|\b(?:and|or|a|an|the|with|of))\s*[.!?]?\s*$", re.IGNORECASE)
_END = re.compile(r"[.!?…。！？][\"'”’»)\]*_`]*\s*$")
_BRACKETS = {")": "(", "]": "[", "}": "{", "”": "“", "»": "«"}
_OPENING = frozenset(_BRACKETS.values())


def words_of(text: str) -> list[str]:
    """The words in lower case, punctuation left out."""
    return [match.group().lower() for match in _WORD.finditer(text)]


def ngrams_again(words: list[str], n: int) -> tuple[int, int]:
    """How many n-grams stood in the same words before, and how many there are.

    >>> ngrams_again("a dog a dog a dog".split(), 3)
    (2, 4)
    """
    total = max(0, len(words) - n + 1)
    return total - len({tuple(words[place : place + n]) for place in range(total)}), total


def broken_marks(text: str) -> list[Mark]:
    """The signs of broken grammar in an answer; each at most once.

    Signs, no grammar: a doubled word, an article before the wrong sound (`a apple`), stray punctuation (`dog,
    , and.`), an end that waits for more (`a dog and`), no end at all, brackets or quotes left open. An empty
    answer has no end.

    >>> broken_marks("There is a apple and and a dog and")
    ['doubled word', 'article', 'dangling', 'no end']
    """
    found: list[Mark] = []
    doubled = (match[1].lower() for match in _DOUBLED.finditer(text))
    if any(word not in _MAY_DOUBLE and (word in _ARTICLES or word not in NUMBERS) for word in doubled):
        found.append("doubled word")
    if _A_VOWEL.search(text) or _AN_CONSONANT.search(text):
        found.append("article")
    stripped = text.rstrip()
    if _LEFT_ALONE.search(stripped, 0, max(0, len(stripped) - 1)):
        found.append("punctuation")
    tail = stripped[-40:]
    if _DANGLING.search(tail):
        found.append("dangling")
    if not _END.search(tail):
        found.append("no end")
    if _is_unbalanced(text):
        found.append("unbalanced")
    return found


_ARTICLES = frozenset(("a", "an"))


def _is_unbalanced(text: str) -> bool:
    """Whether brackets or double quotes don't close; list markers (`1)`, `a)`) and smileys count as open."""
    opened: list[str] = []
    for sign in text:
        if sign in _OPENING:
            opened.append(sign)
        elif sign in _BRACKETS and (not opened or opened.pop() != _BRACKETS[sign]):
            return True
    return bool(opened) or text.count('"') % 2 == 1
