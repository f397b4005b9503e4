"""Texts by their three-word shingles, and which of a set of texts another one nearly repeats.

In scripts without spaces a word is a character (`words.words_of`), and a shingle three of them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from align.rows.words import words_of

_LENGTH = 3


def shingle_hashes(text: str) -> NDArray[np.uint64]:
    """Sorted distinct 64-bit hashes of a text's three-word shingles; a shorter text is one shingle."""
    words = words_of(text)
    last = max(len(words) - _LENGTH, 0)
    shingles = {" ".join(words[start : start + _LENGTH]) for start in range(last + 1)} if words else set()
    values = [int.from_bytes(hashlib.blake2b(s.encode(), digest_size=8).digest(), "little") for s in shingles]
    return np.array(sorted(values), dtype=np.uint64)


class TextIndex:
    """Exact Jaccard similarity to many texts, by an inverted index of their shingles.

    Args:
        texts: shingle hashes of each text.
    """

    def __init__(self, texts: Sequence[NDArray[np.uint64]]) -> None:
        self._sizes = [len(shingles) for shingles in texts]
        self._places: dict[int, list[int]] = {}
        for number, shingles in enumerate(texts):
            for value in shingles.tolist():
                self._places.setdefault(value, []).append(number)

    def best(self, shingles: NDArray[np.uint64]) -> tuple[int, float] | None:
        """The most similar text and its similarity, shared over all shingles; None where none is shared.

        >>> index = TextIndex([shingle_hashes("a b c d"), shingle_hashes("x y z")])
        >>> index.best(shingle_hashes("a b c d e"))
        (0, 0.6666666666666666)
        """
        shared = Counter(number for value in shingles.tolist() for number in self._places.get(value, ()))
        if not shared:
            return None
        number = max(shared, key=lambda n: (shared[n] / (self._sizes[n] + len(shingles) - shared[n]), -n))
        return number, shared[number] / (self._sizes[number] + len(shingles) - shared[number])
