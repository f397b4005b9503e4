"""What the noun phrases of an answer add up to: instances named, repetitions, and the distinct claims.

How numbers add up, category by category:

- every phrase with an article or number names new instances: `a dog, a dog and two dogs` names four;
- a definite one (`the dog`, `his dog`) and one without article name something new only as far as fewer were
  named before, items of a list apart (`a man and woman` are two people);
- `one dog` in a later sentence than `two dogs`, or after `several dogs`, is one of them;
- where a plural of the category's own name comes with other nouns of it (`three people, a man and two
  women`), these are the details: the larger sum counts;
- a plural without a number (`dogs`) says at least two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from align.claims.parsing import Said, read_text

ClaimKind = Literal["presence", "number", "place", "colour", "relation"]
CLAIM_KINDS: tuple[ClaimKind, ...] = ("presence", "number", "place", "colour", "relation")
AT_LEAST = 2
"""What a plural without a number names."""
_TELLING_APART = {"another", "other", "more", "additional", "second", "third"}


@dataclass(frozen=True)
class StatedClaim:
    """One thing that an answer says of one category.

    Attributes:
        value: empty for presence, else `2`, `left`, `red`, `left of:dog`.
    """

    kind: ClaimKind
    category: str
    value: str

    @property
    def other(self) -> str:
        """The second category of a relation, empty for other kinds."""
        return self.value.partition(":")[2]


@dataclass(frozen=True)
class Named:
    """How often an answer names a category.

    Attributes:
        count: instances named; at least two where a plural has no number.
        known: whether every number was said.
        repeated: whether it stands behind more than one number (see `repeated_categories`).
    """

    count: int
    known: bool
    repeated: bool


def claims_of(text: str) -> list[StatedClaim]:
    """The distinct claims of a text in order of mention, presence and number before what is told of it.

    A number is a claim where it is more than one and all is said: `a dog` claims a dog, not that there is one
    only; `a dog, a dog` claims two.

    >>> [(claim.kind, claim.value) for claim in claims_of("Two dogs and a red car on the left.")]
    [('presence', ''), ('number', '2'), ('presence', ''), ('colour', 'red'), ('place', 'left')]
    """
    return claims_in(read_text(text))


def claims_in(phrases: Sequence[Said]) -> list[StatedClaim]:
    """As `claims_of`, for a text that was read already."""
    named = named_instances(phrases)
    found: dict[StatedClaim, None] = {}
    for said in phrases:
        found[StatedClaim("presence", said.category, "")] = None
        total = named[said.category]
        if total.known and total.count > 1:
            found[StatedClaim("number", said.category, str(total.count))] = None
        if said.colour is not None:
            found[StatedClaim("colour", said.category, said.colour)] = None
        if said.place is not None:
            found[StatedClaim("place", said.category, said.place)] = None
        if said.relation is not None:
            found[StatedClaim("relation", said.category, ":".join(said.relation))] = None
    return list(found)


def named_instances(phrases: Sequence[Said]) -> dict[str, Named]:
    """Category -> how many of it are named, in order of first mention; see the module for the rules."""
    by_category: dict[str, list[Said]] = {}
    for said in phrases:
        by_category.setdefault(said.category, []).append(said)
    return {category: _named(category, group) for category, group in by_category.items()}


def repeated_categories(text: str) -> list[str]:
    """The categories that stand behind more than one number, in order of first mention.

    `a dog, a dog, a sheep` repeats the dog, and so do a dog on the left and a dog on the right: two dogs,
    said in two places. Not repeated are `a dog ... the dog`, different nouns (`a man and a woman`), and what
    is told apart by its colour (`a red car and a blue car`) or a word (`another dog`, `two more dogs`).
    Plurals without a number repeat where their words are the same (`several dogs, several dogs`).

    >>> repeated_categories("A dog, a dog and a sheep. The sheep is white.")
    ['dog']
    """
    named = named_instances(read_text(text))
    return [category for category, total in named.items() if total.repeated]


def _named(category: str, group: Sequence[Said]) -> Named:
    general, special, known, repeated = 0, 0, True, False
    has_plural = False  # of the category's own name, which other nouns may detail
    adding: dict[str, list[Said]] = {}
    for said in group:
        before = max(general, special) if has_plural else general + special
        if not _adds(said, before, adding.get(said.noun, [])):
            known &= said.count is not None or before > 0
            new = max(0, (said.count or AT_LEAST) - before)
        else:
            repeated |= any(_repeats(said, other) for other in adding.get(said.noun, []))
            known &= said.count is not None
            new = said.count or 0
        if said.opening != "definite":
            adding.setdefault(said.noun, []).append(said)
        if said.noun == category:
            general += new
            has_plural |= said.count is None or said.count > 1
        else:
            special += new
    total = max(general, special) if has_plural else general + special
    return Named(total if known else max(total, AT_LEAST), known, repeated)


def _adds(said: Said, before: int, others: Sequence[Said]) -> bool:
    """Whether a phrase names instances beyond those named before."""
    if said.opening != "number":
        return said.opening == "bare" and said.listed and said.count is not None
    if not said.text.lower().startswith("one "):
        return True
    is_part = before > 1 and all(other.sentence < said.sentence for other in others)
    return not (is_part or any(other.count is None for other in others))


def _repeats(said: Said, earlier: Said) -> bool:
    """Whether a phrase says an earlier one of the same noun again."""
    if said.count is None or earlier.count is None:
        return said.text.lower() == earlier.text.lower()
    if _TELLING_APART & set(said.text.lower().split()):
        return False
    return said.colour is None or earlier.colour is None or said.colour == earlier.colour
