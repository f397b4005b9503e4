"""What differs between two answers, word by word: pieces of both, marked where the other has something
else."""

from __future__ import annotations

from difflib import SequenceMatcher

from align.rows.words import word_pieces

Pieces = list[tuple[bool, str]]
"""(differs, text), which together are the whole text."""
_MOST_WORDS = 3000


def differences(one: str, other: str) -> tuple[Pieces, Pieces]:
    """Both texts in pieces; very long ones are not compared.

    >>> differences("A cat sits.", "A dog sits.")
    ([(False, 'A '), (True, 'cat'), (False, ' sits.')], [(False, 'A '), (True, 'dog'), (False, ' sits.')])
    """
    sides = [list(word_pieces(text)) for text in (one, other)]
    if max(map(len, sides)) > _MOST_WORDS:
        return [(False, one)], [(False, other)]
    words = [[piece for piece, _, _ in side] for side in sides]
    spans: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    for kind, a, b, c, d in SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        if kind != "equal":
            for place, (start, stop) in enumerate(((a, b), (c, d))):
                if start < stop:
                    spans[place].append((sides[place][start][1], sides[place][stop - 1][2]))
    return _pieces(one, spans[0]), _pieces(other, spans[1])


def _pieces(text: str, spans: list[tuple[int, int]]) -> Pieces:
    pieces, done = [], 0
    for start, end in spans:
        pieces += [(False, text[done:start]), (True, text[start:end])]
        done = end
    return [piece for piece in [*pieces, (False, text[done:])] if piece[1]]
