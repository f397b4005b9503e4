"""An answer without the objects that the judge denies, changed as little as possible.

The answer itself is the rejected one then: chosen and rejected differ in nothing but what was invented, as
in RLHF-V's corrections (Yu et al. 2023, arXiv 2312.00849), though no person has made them. Rules, not a
model: a sentence that names nothing else goes whole; an item of a list goes with its comma. Where that would
leave bad grammar, there is no edit.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from align.objects.mentions import Mode, find_objects

_SENTENCE = re.compile(r"[^.!?]+(?:[.!?]+|$)\s*")
_SEPARATOR = re.compile(r",\s+and\s+|,\s+|\s+and\s+")
_NOUN_PHRASE = re.compile(
    r"(?:\b(?:an?|the|one|two|three|four|five|six|some|several|many|another)\s+)?(?:a\s+pair\s+of\s+)?$", re.I
)
_PLURAL_VERB = re.compile(r"\b(?:are|were|have)\b", re.I)


@dataclass(frozen=True)
class _Item:
    """A piece of a sentence between separators; `before` is the separator in front of it."""

    before: str
    text: str
    names: frozenset[str]


def sentences(text: str) -> list[str]:
    """The sentences of a text, with the white space behind each: joined they are the text.

    >>> sentences("It is noon. A car drives by!  A dog")
    ['It is noon. ', 'A car drives by!  ', 'A dog']
    """
    return [match.group() for match in _SENTENCE.finditer(text)]


def without_objects(text: str, denied: Collection[str], mode: Mode) -> str | None:
    """The text without the denied objects; None if no clean edit is left, or nothing was to be removed.

    >>> without_objects("A dog, a cat and a car.", ["car"], "strict")
    'A dog and a cat.'
    >>> without_objects("There is a cat and a dog. The bus is red.", ["cat", "bus"], "strict")
    'There is a dog.'
    >>> without_objects("A cat sits on a dog.", ["cat"], "strict") is None
    True
    """
    kept = []
    for sentence in sentences(text):
        names = _names(sentence, mode)
        if not names & set(denied):
            kept.append(sentence)
        elif names - set(denied):
            edited = _without_items(sentence.strip(), denied, mode)
            if edited is None:
                return None
            kept.append(edited + sentence[len(sentence.rstrip()) :])
    edited_text = "".join(kept).strip()
    if not edited_text or edited_text == text.strip() or _names(edited_text, mode) & set(denied):
        return None
    return edited_text


def _names(text: str, mode: Mode) -> set[str]:
    return {mention.category for mention in find_objects(text, mode)}


def _without_items(sentence: str, denied: Collection[str], mode: Mode) -> str | None:
    end = re.search(r"[.!?]*$", sentence)
    assert end is not None
    items = _split(sentence[: end.start()], mode)
    doomed = [bool(item.names & set(denied)) for item in items]
    if _PLURAL_VERB.search(sentence) or any(
        gone and (item.names - set(denied) or not item.names)
        for item, gone in zip(items, doomed, strict=True)
    ):
        return None
    kept = [item for item, gone in zip(items, doomed, strict=True) if not gone]
    if not kept or not kept[0].names:
        return None
    head = _head(items[0].text, mode) if doomed[0] else ""
    if head is None:
        return None
    texts = [kept[0].text]
    separators = [item.before for item in kept[1:]]
    ends_with_and = "and" in items[-1].before
    if separators and doomed[-1] and ends_with_and and "and" not in separators[-1]:
        separators[-1] = items[-1].before if len(separators) > 1 else " and "
    if len(separators) == 1 and separators[0].startswith(",") and "and" in separators[0]:
        separators[0] = " and "
    for separator, item in zip(separators, kept[1:], strict=True):
        texts += [separator, item.text]
    edited = head + "".join(texts)
    if sentence[:1].isupper():
        edited = edited[:1].upper() + edited[1:]
    return edited + end.group()


def _split(text: str, mode: Mode) -> list[_Item]:
    items, start, before = [], 0, ""
    for match in [*_SEPARATOR.finditer(text), None]:
        piece = text[start : match.start() if match else len(text)]
        items.append(_Item(before, piece, frozenset(_names(piece, mode))))
        if match:
            before, start = match.group(), match.end()
    return items


def _head(item: str, mode: Mode) -> str | None:
    """What stands before the first object's noun phrase, such as `There is `; None if it is followed by
    words that would lose their subject."""
    mention = find_objects(item, mode)[0]
    if re.match(r"\s+(?:is|are|was|were|has|have|sits?|stands?|lies)\b", item[mention.end :]):
        return None
    return item[: mention.start][: _start_of_phrase(item[: mention.start])]


def _start_of_phrase(before: str) -> int:
    found = _NOUN_PHRASE.search(before)
    return found.start() if found else len(before)
