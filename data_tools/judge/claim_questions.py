"""The question that checks a claim of each kind, and how the first token of the reply is read.

A question that says the claimed value (`Is the car red?`) is answered by yes or no. One that does not (`How
many dogs are in the image?`) is answered by the value itself, and the claim is confirmed where its own value
is likelier than all others together. Numbers and colours are asked openly: that is how VQA data ask them, so
that a model that was tuned on such data knows the answer's form, it cannot agree out of politeness, and one
reply checks every number that eight answers say of one object. Places and relations are asked by yes or no,
since `where` is answered by anything (`on the table`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from pydantic import Field, field_validator

from align.claims import StatedClaim
from align.claims.vocabulary import COLOURS, NUMBERS
from align.config.recipe import Strict
from align.judging.replies import Read, settled
from align.judging.replies import read_yes_no as read_yes_no_words
from align.judging.wording import fill, places
from align.objects.plurals import plural, with_article
from align.rows.schema import ClaimKind
from data_tools.material.claims import read_yes_no

SHORT = "\nAnswer the question using a single word or phrase."
_ARE = frozenset(("skis", "scissors"))
_COUNTED = {"skis": "pairs of skis", "scissors": "pairs of scissors", "broccoli": "heads of broccoli"}
_PLACES = {
    "left": "on the left",
    "middle": "in the middle",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
}
_SIDES = {"left of": "to the left of", "right of": "to the right of"}
_PLACE_WORDS = {name: name for name in _PLACES} | {"center": "middle", "centre": "middle"}
_NUMBER_WORDS = {
    word: str(number) for word, number in NUMBERS.items() if word not in ("a", "an", "another")
} | {
    "none": "0",
    "zero": "0",
}
_WORDS: Mapping[str, Mapping[str, str]] = {"number": _NUMBER_WORDS, "place": _PLACE_WORDS, "colour": COLOURS}
_VALUE_NAMES = {int(number): word for word, number in reversed(_NUMBER_WORDS.items()) if word != "single"}
_SHORTEST_PIECE = 2
"""Letters of a token that may stand for the one value that begins so (`mid`); one letter says too little."""


class Questions(Strict):
    """What is asked about claims of each kind but presence.

    Places to fill: {object} `a dog`, {name} `dog`, {objects} `dogs`, {is} `is` or `are`, {value} what is said
    (`two`, `on the left`, `red`, `to the left of`), {other} `cat`, the other object of a relation.
    Without {value} the reply's own value is read.
    """

    number: str = Field(default=f"How many {{objects}} are in the image?{SHORT}", description="a number")
    place: str = Field(
        default=f"{{is}} the {{name}} {{value}}?{SHORT}",
        description="left, middle, right, top or bottom; `Where {is} the {name}?` reads the place itself",
    )
    colour: str = Field(default=f"What color {{is}} the {{name}}?{SHORT}", description="a colour")
    relation: str = Field(
        default=f"{{is}} the {{name}} {{value}} the {{other}}?{SHORT}",
        description="where an object stands to another one",
    )

    @field_validator("number", "place", "colour", "relation")
    @classmethod
    def _names_the_object(cls, template: str) -> str:
        if not places(template) & {"object", "objects", "name"}:
            raise ValueError("must contain {object}, {objects} or {name}")
        return template

    @field_validator("relation")
    @classmethod
    def _says_the_relation(cls, template: str) -> str:
        if not {"value", "other"} <= places(template):
            raise ValueError("must contain {value} and {other}: relations are asked by yes or no")
        return template


def ask(claim: StatedClaim, template: str) -> str:
    """The question about a claim.

    >>> ask(StatedClaim("number", "apple", "2"), "How many {objects} are in the image?")
    'How many apples are in the image?'
    >>> ask(StatedClaim("relation", "skis", "left of:dog"), "{is} the {name} {value} the {other}?")
    'Are the skis to the left of the dog?'
    """
    value, _, other = claim.value.partition(":")
    words = {
        "object": with_article(claim.category),
        "objects": _COUNTED.get(claim.category, plural(claim.category)),
        "name": claim.category,
        "is": "are" if claim.category in _ARE else "is",
        "value": _spoken_value(claim.kind, value),
        "other": other,
    }
    question = fill(template, words)
    return question[:1].upper() + question[1:]


def claim_text(claim: StatedClaim) -> str:
    """A claim in a word or two, as verdicts show it: `dog`, `dog: two`, `dog: to the left of cat`."""
    if claim.kind == "presence":
        return claim.category
    value, _, other = claim.value.partition(":")
    return f"{claim.category}: {_spoken_value(claim.kind, value)}" + (f" {other}" if other else "")


def read_reply(
    claim: StatedClaim, template: str, first_logprobs: Mapping[str, float]
) -> tuple[float, float] | None:
    """(p_yes, p_no) of a claim from the reply's first token, summed over spellings; None: unscored.

    To a question that does not say the value, `p_yes` is the claimed value's share and `p_no` that of all
    others of its kind. A token that begins one value alone counts as it; of a number in digits only the first
    token is seen, so that 12 is read as 1 by a model that writes digit by digit.
    """
    if claim.kind == "presence" or "value" in places(template):
        return read_yes_no(first_logprobs)
    p_yes = p_no = 0.0
    for spelling, logprob in first_logprobs.items():
        value = _value_of(claim.kind, spelling.strip().lower())
        if value == claim.value:
            p_yes += math.exp(logprob)
        elif value is not None:
            p_no += math.exp(logprob)
    return (min(p_yes, 1.0), min(p_no, 1.0)) if p_yes or p_no else None


def read_text(claim: StatedClaim, template: str, reply: str) -> Read[bool]:
    """Whether a claim is right, by a reply's words; of several values of its kind in them none counts.

    >>> read_text(StatedClaim("number", "dog", "2"), "How many {objects}?", "There are two dogs.").verdict
    True
    """
    if claim.kind == "presence" or "value" in places(template):
        return read_yes_no_words(reply)
    behind = settled(reply)
    if behind.verdict is None:
        return Read(None, behind.reason)
    lines = behind.verdict.lower().splitlines() or [""]
    words = re.findall(r"[a-z]+|(?<![\w.-])\d+(?![\w.]*\d)", lines[-1])
    known = _WORDS[claim.kind]
    values = {known[word] for word in words if word in known}
    if claim.kind == "number":
        values |= {str(int(word)) for word in words if word.isdigit()}
    if len(values) != 1:
        return Read(None, f"the judge's reply names {len(values) or 'no'} values of {claim.kind}")
    return Read(values.pop() == claim.value)


def _value_of(kind: ClaimKind, word: str) -> str | None:
    """The value that a word, or the piece of a word that a token is, says."""
    if kind == "number" and word.isascii() and word.isdigit():
        return str(int(word))
    words = _WORDS[kind]
    if word in words:
        return words[word]
    if len(word) < _SHORTEST_PIECE or not re.fullmatch("[a-z]+", word):
        return None
    meant = {value for name, value in words.items() if name.startswith(word)}
    return meant.pop() if len(meant) == 1 else None


def _spoken_value(kind: ClaimKind, value: str) -> str:
    if kind == "number":
        return _VALUE_NAMES.get(int(value), value)
    if kind == "place":
        return _PLACES.get(value, value)
    return _SIDES.get(value, value) if kind == "relation" else value
