"""The noun phrases of a text that name one of COCO's objects, with what they say of it.

The nouns are those of `align.objects.mentions` in its strict reading, so that denials (`no dog`), compounds
(`train station`) and the hot dog are told apart there. From each noun the words before it are read up to
the number or article that opens the phrase: `two small brown dogs`. No tagger and no model: closed lists of
words, the same answer everywhere, in one pass.

What it does not see: pronouns (`it is red`), a number that stands apart (`dogs, two of them`), compounds that
the vocabulary does not know (`a dog bed` names a dog and a bed, as in CHAIR).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from align.claims.surroundings import colour_after, place_after, place_before, relation_between
from align.claims.vocabulary import (
    ADJECTIVES,
    COLOURS,
    DEFINITE,
    GROUPS,
    NEGATIVE,
    NOT,
    NUMBERS,
    PAIR,
    PAIRED,
    PLURALS,
    PORTIONS,
    SHADES,
    STOPS,
    UNCHANGED,
    VAGUE,
)
from align.objects.mentions import Mention, find_objects, synonyms
from align.objects.plurals import singular_in

Opening = Literal["number", "definite", "bare"]
"""How a phrase begins: with an article or number, with a word that points (`the`, `his`), or with neither."""

_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)*|[^\w\s]|_")
_SENTENCE_END = frozenset(".!?")
_LIST_JOINT = re.compile(r"\s*(?:,|,?\s*and|&)\s*", re.IGNORECASE)
_MAX_JOINT = 12
_PASSED = frozenset("-'\"“”‘’*_")
"""Signs that may stand within a phrase: hyphens, quotes, Markdown's stars."""
_MAX_WORDS = 7
"""Words between a number and its noun; a bound, so that reading is linear."""
_SINGULARS = {"people": "person", "children": "child", "women": "woman", "men": "man", "oxen": "ox"}


@dataclass(frozen=True)
class Said:
    """One noun phrase that names an object: `text == source[start:end]`, number, colour and place included.

    Attributes:
        category: COCO's name.
        count: the number said; 1 for `a`, `an`, `one`, `a pair of skis`, a mass noun and a singular without
            article; None for a plural without a number (`dogs`, `some dogs`): at least two.
        colour: a basic colour, before the noun or after `is`; of `black and white` the first.
        place: left, middle, right, top or bottom, where the words stand beside the noun or open the sentence.
        relation: (predicate, category) to the noun phrase that follows, see `surroundings.PREDICATES`.
        sentence: number of the sentence, 0 is the first.
        opening: how the phrase begins.
        noun: the noun's singular in lower case: `woman` of `two women`, whose category is `person`.
        listed: whether only a comma or `and` stands between it and the phrase before: an item of a list.
    """

    start: int
    end: int
    text: str
    category: str
    count: int | None
    colour: str | None
    place: str | None
    relation: tuple[str, str] | None
    sentence: int
    opening: Opening
    noun: str
    listed: bool


class _Token(NamedTuple):
    start: int
    end: int
    form: str


@dataclass(frozen=True)
class _Opened:
    """What the words before a noun say; `first` is the index of the first token of the phrase."""

    first: int
    count: int | None
    colour: str | None
    opening: Opening
    denied: bool = False


class _Phrase(NamedTuple):
    mention: Mention
    opened: _Opened
    start: int
    sentence: int


def read_text(text: str) -> list[Said]:
    """The noun phrases of a text that name an object, in order.

    >>> [(said.count, said.category) for said in read_text("Two red cars, some dogs and the cat.")]
    [(2, 'car'), (None, 'dog'), (1, 'cat')]
    """
    return list(_said_in(text))


# One text is read for several measures in a row.
@lru_cache(maxsize=64)
def _said_in(text: str) -> tuple[Said, ...]:
    phrases, sentence_starts = _phrases(text)
    found: list[Said] = []
    bound = 0  # where the words of the phrase before end
    for number, phrase in enumerate(phrases):
        following = phrases[number + 1] if number + 1 < len(phrases) else None
        sentence_start = sentence_starts[phrase.sentence]
        sentence_end = (
            sentence_starts[phrase.sentence + 1] if phrase.sentence + 1 < len(sentence_starts) else len(text)
        )
        reach = min(sentence_end, following.start) if following else sentence_end
        noun_end = phrase.mention.end
        after = place_after(text, noun_end, reach)
        place, end = after if after else (None, noun_end)
        if place is None:
            place = place_before(text, max(sentence_start, bound), phrase.start)
        relation = None
        if following and following.sentence == phrase.sentence:
            predicate = relation_between(text, end, following.start)
            relation = (predicate, following.mention.category) if predicate else None
        listed = bound > sentence_start and _is_listed(text, bound, phrase.start)
        found.append(
            Said(
                start=phrase.start,
                end=end,
                text=text[phrase.start : end],
                category=phrase.mention.category,
                count=phrase.opened.count,
                colour=phrase.opened.colour or colour_after(text, noun_end, reach),
                place=place,
                relation=relation,
                sentence=phrase.sentence,
                opening=phrase.opened.opening,
                noun=_singular(phrase.mention),
                listed=listed,
            )
        )
        bound = end
    return tuple(found)


def _is_listed(text: str, bound: int, start: int) -> bool:
    return start - bound <= _MAX_JOINT and _LIST_JOINT.fullmatch(text, bound, start) is not None


def _phrases(text: str) -> tuple[list[_Phrase], list[int]]:
    """The phrases that are not denied, and where each sentence starts."""
    tokens = [_Token(*match.span(), match.group().lower()) for match in _TOKEN.finditer(text)]
    starts = [token.start for token in tokens]
    sentence_starts = _sentence_starts(tokens)
    found: list[_Phrase] = []
    floor = 0  # the first token after the noun before
    for mention in find_objects(text, "strict"):
        index = max(bisect_right(starts, mention.start) - 1, 0)
        opened = _open(tokens, index, floor, mention)
        floor = bisect_right(starts, mention.end - 1)
        if not opened.denied:
            start = tokens[opened.first].start if opened.first < index else mention.start
            sentence = bisect_right(sentence_starts, mention.start) - 1
            found.append(_Phrase(mention, opened, start, max(sentence, 0)))
    return found, sentence_starts


def _sentence_starts(tokens: list[_Token]) -> list[int]:
    starts, ended = [0], False
    for token in tokens:
        if token.form in _SENTENCE_END:
            ended = True
        elif ended:
            starts.append(token.start)
            ended = False
    return starts


def _open(tokens: list[_Token], index: int, floor: int, mention: Mention) -> _Opened:
    """Read leftwards from the noun at `index` to the word that opens its phrase, `floor` at the furthest."""
    plural, unchanged = _is_plural(mention), _is_unchanged(mention)
    colour: str | None = None
    position = index - 1
    while position >= max(floor, index - _MAX_WORDS):
        form = tokens[position].form
        beside = position == index - 1
        number = _number(form)
        if number is not None and not _is_joined(tokens, position):
            # `a chef holds knives`, `a two story bus`: a number that does not agree belongs to another word.
            agrees = unchanged or (number > 1) == plural
            if beside or agrees:
                return _with_number(tokens, position, number, colour)
            if number == 1:
                break
        elif form in VAGUE:
            at_least = _vague_count(plural, unchanged)
            return _with_number(tokens, position, at_least, colour)
        elif form in ("dozen", "couple"):
            return _dozen(tokens, position, colour)
        elif form in NEGATIVE:
            return _Opened(position, 0, colour, "number", denied=True)
        elif form in DEFINITE:
            return _Opened(position, _definite_count(form, plural, unchanged), colour, "definite")
        elif form == "of":
            return _of(tokens, position, mention, colour) or _bare(
                position + 1, index, plural, unchanged, colour
            )
        elif form in COLOURS:
            colour = COLOURS[form]
        elif form == "and" and colour and position and tokens[position - 1].form in COLOURS:
            pass  # a black and white cat
        elif form in ("or", "nor") and _is_denied_list(tokens, position):
            return _Opened(position, 0, colour, "number", denied=True)
        elif form not in _PASSED and (form in STOPS or not form[0].isalnum() or _is_verb(tokens, position)):
            break
        position -= 1
    if floor and position == floor - 1 and tokens[position].form.endswith(("'s", "’s")):
        return _Opened(position + 1, 1 if not plural else None, colour, "definite")  # a man's tie
    first = index
    while first - 1 > position and tokens[first - 1].form in COLOURS.keys() | ADJECTIVES | SHADES:
        first -= 1
    return _bare(first, index, plural, unchanged, colour if first < index else None)


def _bare(first: int, index: int, plural: bool, unchanged: bool, colour: str | None) -> _Opened:
    count = None if plural and not unchanged else 1
    return _Opened(min(first, index), count, colour, "bare")


def _with_number(tokens: list[_Token], position: int, count: int | None, colour: str | None) -> _Opened:
    """A phrase opened by a number: pointed at (`the two dogs`), denied (`isn't a dog`) or plain."""
    if position and tokens[position - 1].form in DEFINITE:
        return _Opened(position - 1, count, colour, "definite")
    if position > 1 and tokens[position - 1].form == "of" and tokens[position - 2].form in ("one", "all"):
        return _Opened(position - 2, 1, colour, "definite")
    before = [token.form for token in tokens[max(0, position - 5) : position]]
    if before[-1:] in (["be"], ["being"]) and "there" not in before:
        return _Opened(position, count, colour, "definite")  # it seems to be a dog
    before = before[-2:]
    denied = any(form in NOT or form.endswith(("n't", "n’t")) for form in before) and "only" not in before
    return _Opened(position, 0 if denied else count, colour, "number", denied or count == 0)


def _of(tokens: list[_Token], position: int, mention: Mention, colour: str | None) -> _Opened | None:
    """`a pair of`, `two slices of`, `a large group of`: the unit before `of` and the number before it."""
    if position == 0:
        return None
    unit, plural = tokens[position - 1].form, _is_plural(mention) or _is_unchanged(mention)
    if unit not in PAIR | GROUPS | PORTIONS | {"dozen", "couple"}:
        return None
    place = position - 2
    while place >= max(0, position - 4) and tokens[place].form in ADJECTIVES:
        place -= 1
    number = _number(tokens[place].form) if place >= 0 else None
    first = place if number is not None else position - 1
    if unit in ("dozen", "couple"):
        return _dozen(tokens, position - 1, colour)
    if unit in PAIR:
        count = number if number is not None else (None if unit == "pairs" else 1)
        if mention.category not in PAIRED and count is not None:
            count *= 2
    elif unit in GROUPS:
        count = None if plural else 1
    else:
        count = number if number is not None else (1 if not unit.endswith("s") else None)
    if number is None:
        opening: Opening = "definite" if place >= 0 and tokens[place].form in DEFINITE else "bare"
        return _Opened(place if opening == "definite" else first, count, colour, opening)
    return _with_number(tokens, first, count, colour)


def _dozen(tokens: list[_Token], position: int, colour: str | None) -> _Opened:
    """`a dozen donuts`, `two dozen eggs`, `a couple of dogs`."""
    unit = 12 if tokens[position].form == "dozen" else 2
    times = _number(tokens[position - 1].form) if position else None
    return _with_number(tokens, position - (times is not None), unit * (times or 1), colour)


def _number(form: str) -> int | None:
    if form in NUMBERS:
        return NUMBERS[form]
    return int(form) if form.isascii() and form.isdigit() and len(form) <= 4 else None


def _vague_count(plural: bool, unchanged: bool) -> int | None:
    return None if plural or unchanged else 1


def _definite_count(form: str, plural: bool, unchanged: bool) -> int | None:
    if form == "both":
        return 2
    return None if (plural and not unchanged) or form in ("these", "those", "all") else 1


def _is_joined(tokens: list[_Token], position: int) -> bool:
    """Whether a number is the first half of an adjective: `a two-story bus`."""
    return (
        position + 1 < len(tokens)
        and tokens[position + 1].form == "-"
        and tokens[position + 1].start == tokens[position].end
    )


def _is_verb(tokens: list[_Token], position: int) -> bool:
    """Whether a word in -ing is a verb (`two chefs cutting pizza`), no participle (`two sleeping dogs`)."""
    form = tokens[position].form
    if not form.endswith("ing") or len(form) < 5:
        return False
    before = tokens[position - 1].form if position else ""
    opens = NUMBERS.keys() | VAGUE | DEFINITE | ADJECTIVES | COLOURS.keys()
    return before not in opens and not before.isdigit()


def _is_denied_list(tokens: list[_Token], position: int) -> bool:
    """Whether `or` stands in a denial: `no dog or cat`."""
    for token in reversed(tokens[max(0, position - 6) : position]):
        if token.form in _SENTENCE_END or token.form in (";", "but"):
            return False
        if token.form in NEGATIVE:
            return True
    return False


def _is_plural(mention: Mention) -> bool:
    word = mention.text.lower()
    if any(word.endswith(plural) for plural in PLURALS):
        return True
    return word.endswith("s") and word not in synonyms()


def _is_unchanged(mention: Mention) -> bool:
    return mention.text.lower().rpartition(" ")[2] in UNCHANGED


def _singular(mention: Mention) -> str:
    word = mention.text.lower()
    for plural, single in _SINGULARS.items():
        if word.endswith(plural):
            return word.removesuffix(plural) + single
    return singular_in(word, synonyms()) or word
