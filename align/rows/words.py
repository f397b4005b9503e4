"""The words of a text in any script: what lengths, shingles and edits are counted in.

Between words most scripts have spaces. Those that have none (Chinese, Japanese, Thai, Lao, Khmer, Burmese
and others) are counted by the character: their line-break classes tell them (Unicode Standard Annex 14: ID
and CJ, ideographs and kana; SA, scripts of South East Asia; AK, Brahmic scripts without spaces). A letter
keeps the marks that stand on it, so that a word of Hindi is one word.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import regex

_UNSPACED = r"[\p{L}&&[\p{Line_Break=ID}\p{Line_Break=CJ}\p{Line_Break=SA}\p{Line_Break=AK}]]"
_SPACED = rf"[[\p{{L}}\p{{N}}]--{_UNSPACED}]"
_WORD = rf"{_UNSPACED}\p{{M}}*|{_SPACED}[{_SPACED}\p{{M}}]*"
_WORDS = regex.compile(_WORD, regex.V1)
_PIECES = regex.compile(rf"{_WORD}|[^\s]", regex.V1)
_UNSPACED_LETTER = regex.compile(_UNSPACED, regex.V1)
_LETTER, _LATIN = regex.compile(r"\p{L}"), regex.compile(r"\p{Latin}")


def words_of(text: str) -> list[str]:
    """A text's words in lower case, without punctuation; spellings that only differ in their encoding agree.

    >>> words_of("A cat's ears."), words_of("一只猫。"), words_of("AI模型")
    (['a', 'cat', 's', 'ears'], ['一', '只', '猫'], ['ai', '模', '型'])
    """
    if text.isascii():
        return _WORDS.findall(text.lower())
    return _WORDS.findall(unicodedata.normalize("NFKC", text).lower())


def count_words(text: str) -> int:
    """How long a text is: pieces between spaces, and in scripts without spaces each character.

    >>> count_words("A cat's ears."), count_words("一只猫。"), count_words("...")
    (3, 3, 1)
    """
    if text.isascii() or not _UNSPACED_LETTER.search(text):
        return len(text.split())
    return len(_WORDS.findall(text))


def word_pieces(text: str) -> Iterator[tuple[str, int, int]]:
    """(piece, start, end) of each word and of each other sign that is no space, as they stand in the text."""
    return ((match.group(), match.start(), match.end()) for match in _PIECES.finditer(text))


def is_latin(text: str) -> bool:
    """Whether at least half of a text's letters are Latin ones; so is a text without letters."""
    if text.isascii():
        return True
    return 2 * len(_LATIN.findall(text)) >= len(_LETTER.findall(text))
