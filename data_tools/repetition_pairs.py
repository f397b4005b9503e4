"""Pairs that differ in a repetition alone: the chosen answer against itself, one phrase said twice.

Sampled answers seldom repeat an object, so pairs of them hardly push against it, and DPO that rewards what is
there finds that an object named again is there too ("a dog, a dog"). The rejected side here has the same
length, the same number of mentions and one object fewer:

    chosen    In a kitchen you can see a bottle, a cup and two apples.
    rejected  In a kitchen you can see a bottle, a bottle and two apples.

It is not what the policy said, so a share of such pairs goes beside those that are (`repetition_share`).
"""

from __future__ import annotations

from collections.abc import Iterator

from align.claims import Said, read_text, repeated_categories
from align.schema import Message, PreferenceRow
from data_tools.seeded_order import seeded_place

REPETITION = "repetition"
"""`meta.edit` of such a pair."""


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
        for one in phrases
        for other in phrases
        if one.category != other.category and one.opening == other.opening == "number"
    ]
    couples.sort(key=lambda both: seeded_place(seed, f"{name} {both[0].start} {both[1].start}"))
    for one, other in couples:
        again = _put(text, one, other)
        if one.category in repeated_categories(again):
            return again
    return None


def repetition_rows(row: PreferenceRow, share: float, seed: int) -> Iterator[PreferenceRow]:
    """The pair made of a row's chosen answer, for the `share` of rows that are drawn by their ids."""
    place = seeded_place(seed, f"repetition {row.id}")
    if int(place[:8], 16) >= share * 16**8:
        return
    again = repeated_text(row.chosen[-1].content, seed, row.id)
    if again is None:
        return
    kept = {key: value for key, value in row.meta.items() if not key.startswith(("chosen_", "rejected_"))}
    yield row.model_copy(
        update={
            "id": f"{REPETITION}>{row.id}",
            "rejected": [*row.rejected[:-1], Message(role="assistant", content=again)],
            "meta": {**kept, "edit": REPETITION},
        }
    )


def _put(text: str, one: Said, other: Said) -> str:
    """`one`'s words where `other` stands, a capital letter where the sentence begins there."""
    words = text[one.start : one.end]
    first = words[0].upper() if text[other.start].isupper() else words[0].lower()
    return text[: other.start] + first + words[1:] + text[other.end :]
