"""Questions about a scene with their short, true answers, in the kinds of VQAv2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from align.objects.plurals import PAIRS
from data_tools.scenes.categories import BY_NAME, CATEGORIES, Category
from data_tools.scenes.colours import COLOURS
from data_tools.scenes.language import (
    NUMBERS,
    PLACES,
    Mention,
    absent_typical,
    mentions,
    relation_of,
    with_article,
)
from data_tools.scenes.render import SceneObject

_NEAR_SHARE = 0.65
"""Share of absent objects asked about that are typical for the context."""
_COUNT_WEIGHTS = (0.0, 0.25, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0)
"""Weight of a category for "how many" by its number, so that "two" is not the answer to most of them."""
_ONE_OF_A_KIND_SHARE = 0.55
"""How often a number is asked where every category is there once."""
_WHAT = {
    "animal": "animal",
    "vehicle": "vehicle",
    "food": "food",
    "furniture": "piece of furniture",
    "electronic": "electronic device",
    "sports": "sports item",
    "accessory": "accessory",
    "kitchen": "kitchen item",
}


@dataclass(frozen=True)
class Question:
    """One question with its short answer, in the kinds of VQAv2."""

    kind: str
    """exists, how many, where, what, color, or verify (is this number, place, colour or relation so?)."""
    text: str
    answer: str
    category: str


def exists_question(name: str) -> str:
    """The wording of POPE, with natural articles."""
    return f"Is there {with_article(name)} in the image?"


def number_question(name: str, count: int) -> str:
    """Whether there are so many, with the number in words; `count` is at least 1."""
    if count == 1:
        single = BY_NAME[name].plural.replace("pairs", "pair").replace("heads", "head")
        return f"Is there only one {single if ' of ' in single else name} in the image?"
    return f"Are there {NUMBERS[count]} {BY_NAME[name].plural} in the image?"


def place_question(name: str, place: str) -> str:
    """Whether the object stands in that third of the image."""
    return f"{_verb(name).capitalize()} the {name} {'in' if place == 'middle' else 'on'} the {place}?"


def color_question(name: str, color: str) -> str:
    """Whether the object has that colour."""
    return f"Is the {name} {color}?"


def relation_question(name: str, relation: str, other: str) -> str:
    """Whether two single objects stand so to each other."""
    return f"{_verb(name).capitalize()} the {name} {relation} the {other}?"


def questions(context: str, objects: Sequence[SceneObject], rng: np.random.Generator) -> list[Question]:
    """Two existence questions (one yes, one no) and up to one each of the other kinds."""
    known = mentions(objects)
    asked = known[int(rng.integers(len(known)))].category
    absent = _negative(context, objects, rng)
    found = [
        Question("exists", exists_question(asked), "yes", asked),
        Question("exists", exists_question(absent), "no", absent),
    ]
    weights = np.array([_COUNT_WEIGHTS[m.count] for m in known])
    if max(m.count for m in known) > 1 or rng.random() < _ONE_OF_A_KIND_SHARE:
        counted = known[int(rng.choice(len(known), p=weights / weights.sum()))]
        text = f"How many {BY_NAME[counted.category].plural} are in the image?"
        found.append(Question("how many", text, str(counted.count), counted.category))
    # Objects stand in the middle more often than at a side: ask about those less often.
    placed = [m for m in known if m.place and (m.place != "middle" or rng.random() < 0.7)]
    if placed:
        where = placed[int(rng.integers(len(placed)))]
        text = f"Where {_verb(where.category)} the {where.category} in the image?"
        found.append(Question("where", text, str(where.place), where.category))
    found.extend(_what_question(known, rng))
    painted = [m for m in known if m.color and m.count == 1]
    if painted:
        one = painted[int(rng.integers(len(painted)))]
        found.append(Question("color", f"What color is the {one.category}?", str(one.color), one.category))
    checks = verify_questions(known, rng)
    if checks:
        found.append(checks[int(rng.integers(len(checks)))])
    return found


def verify_questions(known: Sequence[Mention], rng: np.random.Generator) -> list[Question]:
    """One yes/no question a claim that could be made of the scene; half of the answers are no."""
    found: list[Question] = []

    def add(category: str, text: str, true: bool) -> None:
        found.append(Question("verify", text, "yes" if true else "no", category))

    for mention in known:
        name, true = mention.category, bool(rng.integers(2))
        wrong = mention.count + 1 if mention.count == 1 or rng.random() < 0.5 else mention.count - 1
        said = mention.count if true else min(wrong, len(NUMBERS) - 1)
        add(name, number_question(name, said), said == mention.count)
        for value, values, ask in (
            (mention.place, PLACES, place_question),
            (mention.color if mention.count == 1 else None, tuple(COLOURS), color_question),
        ):
            if value is not None:
                true = bool(rng.integers(2))
                others = [other for other in values if other != value]
                said = value if true else others[int(rng.integers(len(others)))]
                add(name, ask(name, said), true)
    for one, other in pairwise(known):
        relation = relation_of(one, other)
        if relation in ("to the left of", "to the right of"):
            true = bool(rng.integers(2))
            turned = "to the right of" if relation == "to the left of" else "to the left of"
            text = relation_question(one.category, relation if true else turned, other.category)
            add(one.category, text, true)
    return found


def _verb(name: str) -> str:
    return "are" if name in PAIRS else "is"


def _negative(context: str, objects: Sequence[SceneObject], rng: np.random.Generator) -> str:
    """An absent category; typical for the same context in most cases."""
    typical = absent_typical(context, objects)
    if typical and rng.random() < _NEAR_SHARE:
        return typical[int(rng.integers(len(typical)))]
    present = {item.category for item in objects}
    absent = [c.name for c in CATEGORIES if c.name not in present]
    return absent[int(rng.integers(len(absent)))]


def _what_question(known: list[Mention], rng: np.random.Generator) -> list[Question]:
    """At most one question by supercategory, where exactly one category answers it."""
    groups: dict[str, list[Category]] = {}
    for mention in known:
        category = BY_NAME[mention.category]
        groups.setdefault(category.supercategory, []).append(category)
    single = [members[0] for kind, members in groups.items() if kind in _WHAT and len(members) == 1]
    if not single:
        return []
    category = single[int(rng.integers(len(single)))]
    text = f"What {_WHAT[category.supercategory]} is in the image?"
    return [Question("what", text, category.name, category.name)]
