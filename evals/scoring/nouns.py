"""The nouns of a text that AMBER's vocabulary knows, found without a download.

AMBER's script tags words with NLTK's perceptron, keeps NN* and lemmatises them with WordNet (inference.py
at 534babf6). `rules` does without either: it decides by the word and its neighbours, and knows what WordNet
makes of the vocabulary's plurals. `nltk` is the script's own way, where NLTK and its data are installed.

`official` keeps the script's quirks: the look-up is case-sensitive, so that `Trees` at the head of a sentence
is no word of the vocabulary; WordNet takes `men` for a word of its own, `vases` for a plural of `vas`, and
`slippers` and the like for plurals of words that the vocabulary has not. `strict` mends these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import NamedTuple

from align.errors import AlignError
from align.objects.plurals import singular_in
from evals.protocol import Mode

_TOKEN = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*|[^\sA-Za-z]")
_PLURALS = (("s", ""), ("ses", "s"), ("xes", "x"), ("ches", "ch"), ("shes", "sh"), ("ies", "y"))
"""WordNet's detachment rules for nouns, as far as the vocabulary needs them."""
_IRREGULAR = {
    "bookshelves": "bookshelf", "children": "child", "geese": "goose", "knives": "knife", "mice": "mouse",
    "potatoes": "potato", "scarves": "scarf", "shelves": "shelf", "snowmen": "snowman", "tomatoes": "tomato",
    "women": "woman",
}  # fmt: skip
_NEVER = frozenset({"chopsticks", "earrings", "men", "slippers", "sunglasses", "vases"})
"""Surfaces that WordNet leads out of the vocabulary."""
_UNKNOWN = "TV air-conditioning bedsheet cooktop e-book ebook electrombile kiwifruit paraglider streetlamp"
_NO_PLURAL = frozenset(_UNKNOWN.split())
"""Words that WordNet does not know, so that their plurals stay as they are."""

_VERB_WORDS = """
bear board book brush can drink duck file fish flag ground hose house leave light line lock lounge mirror
monitor net note pack paddle plug range ring rock screen shell ship shovel sign sink skate ski sound spray
stage star string support switch tap tape tie tire towel track train watch water
"""
_VERBS = frozenset(_VERB_WORDS.split())
"""Words of the vocabulary that captions also use as verbs."""
_SUBJECTS = """
to can could will would may might must should shall do does did not he she it they we i you who that which
also
"""
_BEFORE_VERB = frozenset(_SUBJECTS.split())
_CANS = """
a an the trash garbage soda beer tin spray watering paint aluminum metal recycling
"""
_BEFORE_CAN = frozenset(_CANS.split())
_COLOUR_WORDS = """
amber beige black blue bluish brown colored coloured cream gray green grey greyish orange pink purple red tan
white wood wooden yellow
"""
_COLOURS = frozenset(_COLOUR_WORDS.split())
_CONNECTIVES = """
and or but in on at by of to with near next beside behind under above below between around inside from is are
was were has have sits lies that which while as
"""
_AFTER_FRUIT = frozenset(_CONNECTIVES.split())


class Noun(NamedTuple):
    """Characters [start, end) of a text, and the word of the vocabulary that stands there."""

    start: int
    end: int
    lemma: str


def vocabulary_nouns(text: str, vocabulary: Collection[str], mode: Mode = "official") -> list[str]:
    """The words of the vocabulary that the text uses as nouns, lemmatised, in order, repeats included.

    >>> vocabulary_nouns("A man watches two dogs on the grass.", {"man", "watch", "dog", "grass"})
    ['man', 'dog', 'grass']
    """
    return [noun.lemma for noun in placed_nouns(text, vocabulary, mode)]


def placed_nouns(text: str, vocabulary: Collection[str], mode: Mode = "official") -> list[Noun]:
    """The same, each with its place."""
    tokens = list(_TOKEN.finditer(text))
    words = [token.group() for token in tokens]
    found = []
    for place, word in enumerate(words):
        lemma = _official_lemma(word, vocabulary) if mode == "official" else _strict_lemma(word, vocabulary)
        if lemma is not None and _is_noun(words, place, lemma):
            found.append(Noun(*tokens[place].span(), lemma))
    return found


def nltk_nouns(text: str, vocabulary: Collection[str]) -> list[str]:
    """The same as AMBER's script finds them.

    Raises:
        AlignError: NLTK or its data are not installed.
    """
    tokenize, tag, lemmatize = _nltk()
    nouns = [lemmatize(word) for word, kind in tag(tokenize(text)) if kind.startswith("NN")]
    return [noun for noun in nouns if noun in vocabulary]


def _official_lemma(word: str, vocabulary: Collection[str]) -> str | None:
    if word in _NEVER:
        return None
    if word in _IRREGULAR:
        return _IRREGULAR[word] if _IRREGULAR[word] in vocabulary else None
    if word in vocabulary:
        return word
    singulars = (word.removesuffix(end) + single for end, single in _PLURALS if word.endswith(end))
    return next((form for form in singulars if form in vocabulary and form not in _NO_PLURAL), None)


def _strict_lemma(word: str, vocabulary: Collection[str]) -> str | None:
    forms = [word, word.lower(), word.removesuffix("s")]
    return next((form for form in forms if form in vocabulary), None) or singular_in(word.lower(), vocabulary)


def _is_noun(words: Sequence[str], place: int, lemma: str) -> bool:
    before = words[place - 1].lower() if place else ""
    after = words[place + 1].lower() if place + 1 < len(words) else ""
    if lemma == "hot":
        return False
    if words[place] == "can":
        return before in _BEFORE_CAN and after not in ("be", "also", "not")
    if lemma == "orange":
        return not after.isalpha() or after in _AFTER_FRUIT
    if lemma == "light" and after in _COLOURS:
        return False
    return not (lemma in _VERBS and before in _BEFORE_VERB)


@cache
def _nltk() -> tuple[
    Callable[[str], list[str]], Callable[[list[str]], list[tuple[str, str]]], Callable[[str], str]
]:
    """NLTK's tokeniser, tagger and lemmatiser, once they are known to work."""
    try:
        from nltk import pos_tag, word_tokenize  # pyright: ignore[reportMissingImports]
        from nltk.stem import WordNetLemmatizer  # pyright: ignore[reportMissingImports]

        lemmatize = WordNetLemmatizer().lemmatize
        pos_tag(word_tokenize("probe"))
        lemmatize("probes")
    except (ImportError, LookupError) as error:
        raise AlignError(
            f"nouns: nltk needs NLTK and its data: {str(error).strip().splitlines()[0]}",
            where="nouns",
            fix="pip install nltk; python -m nltk.downloader punkt_tab averaged_perceptron_tagger_eng "
            "wordnet; or leave nouns at rules",
        ) from error
    return word_tokenize, pos_tag, lemmatize
