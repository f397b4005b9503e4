"""English singulars: as the `pattern` library makes them (CHAIR's published numbers rest on its mistakes),
as WordNet does, and right; the last two for words whose singular must be in a known vocabulary. And the
plural and the article of a COCO object."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

_IRREGULAR = {
    "men": "man",
    "people": "person",
    "children": "child",
    "grandchildren": "grandchild",
    "oxen": "ox",
    "geese": "goose",
    "mice": "mouse",
    "calves": "calf",
    "knives": "knife",
}
"""Plural ending -> singular ending; endings, so that `policemen` and `pocketknives` work too."""

_PATTERN_UNCHANGED = ("bison", "scissors", "swine", "news", "luggage", "rice", "sand", "bread", "fruit")
"""Words that `pattern` takes for uninflected. It compares the wrong way round (the list's word ends
with the given one), so that `is` or `son` stay as they are too."""

_PATTERN_IE = ("collies", "doggies", "cookies", "beanies", "veggies", "rookies", "birdies")
"""Plurals of -ie words; `pattern` means to cut their s and returns them as they are."""

_PATTERN_RULES = [
    (re.compile(expression), replacement)
    for expression, replacement in (
        (r"(?<=o)es$", ""),
        (r"(?<=bus)es$", ""),
        (r"(?<=[ml|])ice$", "ouse"),
        (r"(?<=x)es$", ""),
        (r"(?<=ch|ss|sh)es$", ""),
        (r"(?<=[^aeiouy])ies$", "y"),
        (r"(?<=[aeo]l)ves$", "f"),
        (r"(?<=[nlw]i)ves$", "fe"),
        (r"s$", ""),
    )
]
"""The rules of `pattern.text.en.singularize` that can produce or destroy a word of CHAIR's list; the
last one is what turns `bus` into `bu`, `glass` into `glas` and `tennis` into `tenni`."""


@lru_cache(maxsize=65536)
def pattern_singular(word: str) -> str:
    """The singular of a lower-case word as `pattern` (3.6) gives it, for CHAIR's vocabulary.

    >>> [pattern_singular(word) for word in ("knives", "buses", "bus", "ties", "policemen")]
    ['knife', 'bus', 'bu', 'ty', 'policeman']
    """
    if any(known.endswith(word) for known in _PATTERN_UNCHANGED) or word.endswith(_PATTERN_IE):
        return word
    for plural in ("men", "people", "children", "oxen", "geese"):
        if word.endswith(plural):
            return word.removesuffix(plural) + _IRREGULAR[plural]
    for rule, replacement in _PATTERN_RULES:
        changed, count = rule.subn(replacement, word)
        if count:
            return changed
    return word


def singular_in(word: str, vocabulary: Collection[str]) -> str | None:
    """The form of a lower-case word that the vocabulary holds: itself, or its singular; None if neither.

    >>> [singular_in(word, {"bus", "knife", "tie", "dress"}) for word in ("bus", "buses", "ties", "as")]
    ['bus', 'bus', 'tie', None]
    """
    for candidate in _candidates(word):
        if candidate in vocabulary:
            return candidate
    return None


@lru_cache(maxsize=65536)
def _candidates(word: str) -> tuple[str, ...]:
    found = [word]
    found += [word.removesuffix(end) + single for end, single in _IRREGULAR.items() if word.endswith(end)]
    if word.endswith("ies"):
        found += [word[:-3] + "y", word[:-1]]
    elif word.endswith("es"):
        found += [word[:-1], word[:-2]]
        if word.endswith("sses") or word.endswith("zzes"):
            found.append(word[:-3])
    elif word.endswith("s") and not word.endswith("ss"):
        found.append(word[:-1])
    return tuple(found)


_WORDNET_STUCK = frozenset({"men", "vases"})
"""Plurals that WordNet's lemmatiser leads elsewhere: `men` is a word of its own, `vases` comes from `vas`."""


def wordnet_singular(word: str, vocabulary: Collection[str]) -> str:
    """The noun that WordNet's lemmatiser (as NLTK calls it) makes of a lower-case word, for words whose
    singular the vocabulary holds; other words as they are.

    >>> [wordnet_singular(word, {"bus", "man", "glass"}) for word in ("bus", "buses", "men", "glasses")]
    ['bus', 'bus', 'men', 'glass']
    """
    if word in _WORDNET_STUCK:
        return word
    return singular_in(word, vocabulary) or word


_PLURALS = {"person": "people", "mouse": "mice", "knife": "knives"}
_UNCHANGED = ("sheep", "broccoli", "skis", "scissors")
_NO_ARTICLE = {"broccoli": "some broccoli"}
PAIRS = ("skis", "scissors")
"""Of these one is a pair."""


def plural(name: str) -> str:
    """The plural of a COCO object.

    >>> [plural(name) for name in ("dog", "bus", "person", "wine glass", "skis", "sandwich", "knife")]
    ['dogs', 'buses', 'people', 'wine glasses', 'skis', 'sandwiches', 'knives']
    """
    if name in _PLURALS or name in _UNCHANGED:
        return _PLURALS.get(name, name)
    return name + ("es" if name.endswith(("s", "sh", "ch", "x")) else "s")


def with_article(name: str, color: str | None = None) -> str:
    """``a dog``, ``an apple``, ``a red car``, ``a pair of skis``, ``some broccoli``."""
    if color is not None:
        return f"a {color} {name}"
    if name in _NO_ARTICLE:
        return _NO_ARTICLE[name]
    if name in PAIRS:
        return f"a pair of {name}"
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"
