"""What stands around a noun: its place in the picture, its colour, its relation to the next noun.

Patterns only: bounded look-ahead, so that reading is linear in the text's length.
"""

from __future__ import annotations

import re

from align.claims.vocabulary import COLOURS, SHADES

Place = str
"""left | middle | right | top | bottom."""

_SIDE = r"(?:side|corner|part|half|edge|third|portion|area)"
_PICTURE = r"(?:\s+of\s+the\s+(?:image|picture|photo|photograph|scene|frame|shot))"
# What is read of a place is read as a whole: `on the left side of a dog` is no place, and must not be read as
# `on the left` instead. A look-ahead is never gone back into, and says so on every Python; possessive
# quantifiers with groups in them are wrong before 3.11.5 (python/cpython#106052).
_PLACE = (
    r"(?:on|in|at|to|near|towards?)\s+the\s+(?:far\s+|very\s+)?"
    r"(?=(?P<whole>"
    r"(?:(?P<height>top|upper|bottom|lower)[\s-]+(?=(?:left|right|middle|center|centre)\b))?"
    r"(?P<place>left|right|middle|center|centre|top|bottom)\b"
    rf"(?:[\s-]+hand\b)?(?:\s+{_SIDE}\b)?{_PICTURE}?"
    r"))(?P=whole)(?!\s+of\b)"
)
_NO_FILLER = r"(?!(?:and|or|but|with|while|in|on|at|to|of|near|towards?)\b)"
_FILLERS = rf"(?:\s+{_NO_FILLER}[a-z]{{1,20}}){{0,4}}?"
_AFTER = re.compile(rf"{_FILLERS}\s+{_PLACE}", re.IGNORECASE)
_BEFORE = re.compile(rf"(?:^|[,;:]|\band\b)\s*{_PLACE}\s*,?(?:\s+[a-z']{{1,20}}){{0,4}}\s*$", re.IGNORECASE)
_BEFORE_REACH = 100
"""Characters before a noun phrase in which its place may be said first."""

_PREDICATES = (
    ("left of", r"(?:to|on)\s+the\s+left(?:\s+side)?\s+of|left\s+of"),
    ("right of", r"(?:to|on)\s+the\s+right(?:\s+side)?\s+of|right\s+of"),
    ("in front of", r"in\s+front\s+of"),
    ("on", r"on\s+top\s+of|atop|on"),
    ("next to", r"next\s+to|beside|alongside"),
    ("above", r"above|over"),
    ("below", r"below"),
    ("under", r"underneath|beneath|under"),
    ("behind", r"behind"),
)
PREDICATES = tuple(name for name, _ in _PREDICATES)
"""The relations that are read."""
_BETWEEN = re.compile(
    r"(?:\s+(?!(?:and|or|but|with|while)\b)[a-z]{1,20}){0,3}?\s+(?:"
    + "|".join(f"(?P<p{number}>{pattern})" for number, (_, pattern) in enumerate(_PREDICATES))
    + r")\s*",
    re.IGNORECASE,
)
_COLOUR_AFTER = re.compile(
    r"(?:\s+(?:that|which))?\s+(?:is|are|was|were|looks?|appears?)\s+"
    rf"(?:(?:{'|'.join(sorted(SHADES))})\s+)?({'|'.join(COLOURS)})\b",
    re.IGNORECASE,
)
_HEIGHTS = {"upper": "top", "lower": "bottom", "center": "middle", "centre": "middle"}


def place_after(text: str, position: int, end: int) -> tuple[Place, int] | None:
    """The place said after a noun that ends at `position`, and where its words end.

    Of two (`in the top left corner`) the horizontal one is meant, unless it is the middle: `in the top
    middle` is the top.
    """
    found = _AFTER.match(text, position, end)
    return None if found is None else (_place(found), found.end())


def place_before(text: str, start: int, position: int) -> Place | None:
    """The place said before a noun phrase that begins at `position`: `On the left there is a dog`.

    Args:
        start: where the sentence or the words of the phrase before end.
    """
    found = _BEFORE.search(text[max(start, position - _BEFORE_REACH) : position])
    return None if found is None else _place(found)


def relation_between(text: str, position: int, end: int) -> str | None:
    """How the noun that ends at `position` stands to the phrase that begins at `end`; None if nothing is
    said."""
    if end - position > _BEFORE_REACH:
        return None
    found = _BETWEEN.fullmatch(text, position, end)
    if found is None:
        return None
    return next(PREDICATES[number] for number in range(len(PREDICATES)) if found[f"p{number}"] is not None)


def colour_after(text: str, position: int, end: int) -> str | None:
    """The colour in `the car is red`."""
    found = _COLOUR_AFTER.match(text, position, end)
    return None if found is None else COLOURS[found[1].lower()]


def _place(found: re.Match[str]) -> Place:
    place, height = found["place"].lower(), (found["height"] or "").lower()
    place = _HEIGHTS.get(place, place)
    return _HEIGHTS.get(height, height) if height and place == "middle" else place
