"""How an answer is written, whatever it says: sentences, punctuation, layout, in any script.

What a list or a bold word does for a preference, DPO can learn without a look at the picture. Pairs are
balanced by the first features (`pairs.style_tolerance`) and audited for all of them.
"""

from __future__ import annotations

import re

from align.rows.words import count_words

BALANCED = ("words_per_sentence", "commas", "list_lines", "hedges")
FEATURES = (*BALANCED, "sentences", "line_breaks", "markup", "capitals", "digits", "ends_in_a_stop")
# A full stop ends a sentence before a space; those of Chinese, Hindi, Arabic and others end it anywhere.
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?:\s|$)|[。！？｡।॥؟۔]+|[።]+")
_COMMA = re.compile("[,，、،､]")
_LIST_LINE = re.compile(r"^\s*(?:[-*•・‣▪]|[\d一二三四五六七八九十]+[.)、．])\s*\S", re.M)
_HEDGE = re.compile(
    r"\b(?:may|might|perhaps|possibly|probably|likely|seems?|appears?|suggest(?:s|ing)?|could)\b"
    "|可能|也许|或许|似乎|好像|大概|看起来|かもしれ|おそらく|たぶん|ようです|อาจ|คงจะ|아마|возможно|вероятно|кажется",
    re.I,
)
_MARKUP = re.compile(r"\*\*|__|`|^#{1,6} |<[a-zA-Z/][^>]*>", re.M)
_STOP = re.compile(r"[.!?…。！？｡।؟۔)\"'”’]\s*$")


def style_of(text: str) -> tuple[float, ...]:
    """The features that pairs are balanced by: words a sentence, commas a word, list lines, hedges a word.

    Hedging words are those of English and a few of Chinese, Japanese, Thai, Korean and Russian.

    >>> style_of("A dog, perhaps. It sits.")
    (2.5, 0.2, 0.0, 0.2)
    >>> style_of("一只狗，可能。它坐着。")
    (4.0, 0.125, 0.0, 0.125)
    """
    words = max(count_words(text), 1)
    return (
        words / _sentences(text),
        len(_COMMA.findall(text)) / words,
        float(len(_LIST_LINE.findall(text))),
        len(_HEDGE.findall(text)) / words,
    )


def whole_style_of(text: str) -> tuple[float, ...]:
    """All of `FEATURES`: those of `style_of`, sentences, line breaks, marks of bold and code and headings,
    the share of capitals and of digits, and whether the answer ends as a sentence does (1 or 0)."""
    signs = max(len(text), 1)
    return (
        *style_of(text),
        float(_sentences(text)),
        float(text.strip().count("\n")),
        float(len(_MARKUP.findall(text))),
        sum(map(str.isupper, text)) / signs,
        sum(map(str.isdigit, text)) / signs,
        float(_STOP.search(text) is not None),
    )


def _sentences(text: str) -> int:
    return max(len(_SENTENCE_END.findall(text)), 1)
