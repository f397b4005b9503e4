"""Which characters of two answers differ, as weighted spans for dense DPO."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from align.rows.schema import Span, Spans
from align.rows.words import word_pieces

DEFAULT_WEIGHT = 5.0
"""RLHF-V's gamma (Yu et al. 2023, arXiv 2312.00849, section 3.2)."""


def edit_spans(chosen: str, rejected: str, weight: float) -> Spans:
    """Spans over the words that differ between two answers, in both; neighbouring words make one span.

    In scripts without spaces a word is a character (`words.word_pieces`).

    >>> spans = edit_spans("A cat on a mat", "A big dog on a mat", 5.0)
    >>> [(s.start, s.end) for s in spans.chosen], [(s.start, s.end) for s in spans.rejected]
    ([(2, 5)], [(2, 9)])
    >>> [(s.start, s.end) for s in edit_spans("桌上有一只猫。", "桌上有一只狗。", 5.0).chosen]
    [(5, 6)]
    """
    sides = [list(word_pieces(text)) for text in (chosen, rejected)]
    words = [[word for word, _, _ in side] for side in sides]
    spans = Spans()
    for kind, a, b, c, d in SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        if a < b:
            spans.chosen.append(Span(start=sides[0][a][1], end=sides[0][b - 1][2], weight=weight))
        if c < d:
            spans.rejected.append(Span(start=sides[1][c][1], end=sides[1][d - 1][2], weight=weight))
    return spans


def changed_share(text: str, spans: Sequence[Span]) -> float:
    """The share of a text's characters that its spans cover; 0 for an empty text."""
    return sum(span.end - span.start for span in spans) / len(text) if text else 0.0
