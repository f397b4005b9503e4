"""Pairs of a chosen answer against itself, one phrase altered: a repetition, an invention, an omission.

Two sampled answers differ in many things at once, and DPO learns whichever is learnt most easily: strong
enough to lower invention, it repeats objects, counts up, or names less. A pair that differs in one phrase
leaves one thing to learn:

    chosen      In a kitchen you can see a bottle, a cup and two apples.
    repetition  In a kitchen you can see a bottle, a bottle and two apples.     an object said twice
    swap        In a kitchen you can see a bottle, a dog and two apples.        one that the judge denies
    omission    In a kitchen you can see a bottle and two apples.               a confirmed one left out

Repetition and swap are as long as the chosen answer, with as many mentions; omission pays for naming what is
there. What is swapped in was said by the policy of this very picture (in the pair's rejected answer): its own
invention. POVID's swaps (Zhou et al. 2024, arXiv 2402.11411, section 3.1) take what usually stands beside.
The altered texts as a whole are not what the policy said, so a share of each kind (`altered`) goes beside
pairs that are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from align.claims import Said, read_text, repeated_categories
from align.objects.mentions import Mode
from align.rows.schema import Message, PreferenceRow, Spans
from data_tools.material.seeded_order import seeded_place
from data_tools.pairs.minimal_edit import without_objects

Alteration = Literal["repetition", "swap", "omission"]
"""What is altered; `meta.edit` of such a pair."""


def repeated_text(text: str, seed: int, name: str) -> str | None:
    """`text` with one of its objects said again in place of another; None where it has no two to say so.

    Args:
        name: what is drawn depends on it and the seed.

    >>> repeated_text("A dog and a cat.", 0, "x") in ("A dog and a dog.", "A cat and a cat.")
    True
    """
    phrases = read_text(text)
    if len({said.category for said in phrases}) < 2 or repeated_categories(text):
        return None
    couples = [
        (one, other)
        for one in _numbered(phrases)
        for other in _numbered(phrases)
        if one.category != other.category
    ]
    for one, other in _drawn(couples, seed, name):
        again = _put(text, one, other)
        if one.category in repeated_categories(again):
            return again
    return None


def swapped_text(
    text: str, confirmed: Sequence[str], other_text: str, denied: Sequence[str], seed: int, name: str
) -> str | None:
    """`text` with a phrase of `other_text` in place of one of its own; None where there are no two such.

    Args:
        confirmed: objects of `text` that may give way.
        denied: objects of `other_text` that may come in; one that `text` names too may not.

    >>> swapped_text("A dog and a cat.", ["cat"], "A car on the left.", ["car"], 0, "x")
    'A dog and a car on the left.'
    """
    phrases = read_text(text)
    named = {said.category for said in phrases}
    couples = [
        (one, other)
        for one in _numbered(read_text(other_text))
        for other in _numbered(phrases)
        if one.category in denied and one.category not in named and other.category in confirmed
    ]
    for one, other in _drawn(couples, seed, name):
        return _put(text, one, other)
    return None


def shortened_text(text: str, confirmed: Sequence[str], seed: int, name: str, mode: Mode) -> str | None:
    """`text` without one of the `confirmed` objects; None where no clean edit leaves another object.

    >>> shortened_text("A dog, a cat and a car.", ["car"], 0, "x", "strict")
    'A dog and a cat.'
    """
    for gone in sorted(confirmed, key=lambda category: seeded_place(seed, f"{name} {category}")):
        shorter = without_objects(text, [gone], mode)
        if shorter is not None and read_text(shorter):
            return shorter
    return None


def altered_rows(
    row: PreferenceRow, shares: dict[Alteration, float], seed: int, mode: Mode
) -> Iterator[PreferenceRow]:
    """The pairs made of a row's chosen answer: of each kind for the share of rows drawn by their ids."""
    for kind, share in shares.items():
        place = seeded_place(seed, f"{kind} {row.id}")
        if int(place[:8], 16) >= share * 16**8:
            continue
        text = _altered(kind, row, seed, mode)
        if text is None:
            continue
        kept = {key: value for key, value in row.meta.items() if not key.startswith(("chosen_", "rejected_"))}
        yield row.model_copy(
            update={
                "id": f"{kind}>{row.id}",
                "rejected": [*row.rejected[:-1], Message(role="assistant", content=text)],
                "spans": Spans(),  # the row's own are places in texts that are not these
                "meta": {**kept, "edit": kind},
            }
        )


def _altered(kind: Alteration, row: PreferenceRow, seed: int, mode: Mode) -> str | None:
    text = row.chosen[-1].text
    if kind == "repetition":
        return repeated_text(text, seed, row.id)
    confirmed = row.meta.get("chosen_confirmed", [])
    if kind == "omission":
        return shortened_text(text, confirmed, seed, row.id, mode)
    denied = row.meta.get("rejected_denied", [])
    return swapped_text(text, confirmed, row.rejected[-1].text, denied, seed, row.id)


def _numbered(phrases: Sequence[Said]) -> list[Said]:
    """Those that an article or number opens: they can stand in each other's place."""
    return [said for said in phrases if said.opening == "number"]


def _drawn(couples: list[tuple[Said, Said]], seed: int, name: str) -> list[tuple[Said, Said]]:
    return sorted(couples, key=lambda both: seeded_place(seed, f"{name} {both[0].start} {both[1].start}"))


def _put(text: str, one: Said, other: Said) -> str:
    """`one`'s words where `other` stands, a capital letter where the sentence begins there."""
    first = one.text[0].upper() if text[other.start].isupper() else one.text[0].lower()
    return text[: other.start] + first + one.text[1:] + text[other.end :]
