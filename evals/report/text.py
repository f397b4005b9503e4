"""Model text made safe to show: control characters replaced, long answers cut, everything escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

MAX_SHOWN = 2000
# Not printable, not valid in UTF-8, or able to reorder the text around them. Each is replaced by one
# character, so that the offsets of mentions stay right.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


@dataclass(frozen=True)
class Span:
    """Characters [start, end) of an answer, with the class and the tooltip they are shown with."""

    start: int
    end: int
    css: str
    tip: str


def clean(text: str) -> str:
    """The same number of characters, all of them printable and encodable."""
    return _UNSAFE.sub("\ufffd", text)


def mark_spans(text: str, spans: Sequence[Span], limit: int = MAX_SHOWN) -> Markup:
    """Escaped text with `<mark>` around the spans; overlapping or impossible spans are left out.

    Args:
        text: the model's answer as it came.
        spans: offsets in characters of `text`.
        limit: characters shown; a note says how many there were.
    """
    shown = clean(text)[:limit]
    pieces: list[Markup] = []
    at = 0
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if span.start < at or span.end > len(shown) or span.end <= span.start:
            continue
        pieces.append(escape(shown[at : span.start]))
        word = shown[span.start : span.end]
        pieces.append(Markup('<mark class="{}" title="{}">{}</mark>').format(span.css, span.tip, word))
        at = span.end
    pieces.append(escape(shown[at:]))
    if len(text) > limit:
        pieces.append(
            Markup(' <span class="cut">… cut here; {} characters in all</span>').format(f"{len(text):,}")
        )
    return Markup("").join(pieces)


def short(text: str, limit: int = 160) -> str:
    """One clean line of at most `limit` characters."""
    line = " ".join(clean(text[: limit * 4]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
