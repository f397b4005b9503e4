"""What people say about a scene: captions, web captions with noise, questions and answers.

Everything is true of the scene except what `web_caption` inserts on purpose. Context phrases
avoid CHAIR's object words (``table``, ``desk``, ``seat``), so that only real mentions count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_tools.scenes.categories import BY_NAME, CATEGORIES, CONTEXT_BY_NAME, Category
from data_tools.scenes.render import IMAGE_SIZE, SceneObject

NOISE_SHARE = 0.6
"""Share of web captions that name at least one object which is not there."""
SECOND_INVENTION_SHARE = 0.3
"""Share of noisy captions that name two of them."""
DESCRIBE_PROMPT = "Please describe this image in detail."
"""The prompt whose answers CHAIR scores."""
DESCRIBE_PROMPTS = (
    DESCRIBE_PROMPT,
    "Describe this image.",
    "Describe the image in detail.",
    "What does this image show?",
    "What is happening in this image?",
    "Write a caption for this image.",
    "What can you see in this picture?",
    "Give a short description of the image.",
)
SHORT_ANSWER_SUFFIX = "\nAnswer the question using a single word or phrase."
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
PLACES = ("left", "middle", "right")

_PLACE_MARGIN = 4  # pixels between a third's border and a centre which is clearly inside
_MENTION_SHARE = 0.93
_NOISE_FACTORS = {1: 1.45, 2: 1.35, 3: 0.85, 4: 0.5, 5: 0.35, 6: 0.3}
_LATER_FACTOR = 12.0
"""How much likelier an invention comes after all that is there than before."""
_NO_ARTICLE = {"broccoli": "some broccoli"}
_PAIRS = ("skis", "scissors")
_PLACE_IN_CAPTION = {category.name: place for place, category in enumerate(CATEGORIES)}
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
class Mention:
    """One category as a caption speaks of it."""

    category: str
    count: int
    place: str | None
    """left, middle or right, where one object is clearly there; None otherwise."""


@dataclass(frozen=True)
class Question:
    """One question with its short answer, in the kinds of VQAv2."""

    kind: str
    """exists, how many, where or what."""
    text: str
    answer: str
    category: str


def with_article(name: str) -> str:
    """``a dog``, ``an apple``, ``a pair of skis``, ``some broccoli``."""
    if name in _NO_ARTICLE:
        return _NO_ARTICLE[name]
    if name in _PAIRS:
        return f"a pair of {name}"
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def noun_phrase(name: str, count: int) -> str:
    """``a dog`` or ``two dogs``."""
    return with_article(name) if count == 1 else f"{NUMBERS[count]} {BY_NAME[name].plural}"


def place_of(item: SceneObject) -> str | None:
    """The third of the image that holds the centre of `item`'s box, if clearly one of them."""
    third = IMAGE_SIZE / len(PLACES)
    centre = item.bbox[0] + item.bbox[2] / 2
    number = min(int(centre // third), len(PLACES) - 1)
    left_ok = number == 0 or centre - number * third >= _PLACE_MARGIN
    right_ok = number == len(PLACES) - 1 or (number + 1) * third - centre >= _PLACE_MARGIN
    return PLACES[number] if left_ok and right_ok else None


def mentions(objects: Sequence[SceneObject]) -> list[Mention]:
    """Every category of a scene once, with its count, largest objects first."""
    counts = Counter(item.category for item in objects)
    ordered = sorted(objects, key=lambda item: -item.area)
    found: dict[str, Mention] = {}
    for item in ordered:
        place = place_of(item) if counts[item.category] == 1 else None
        found.setdefault(item.category, Mention(item.category, counts[item.category], place))
    return list(found.values())


def absent_typical(context: str, objects: Sequence[SceneObject]) -> list[str]:
    """Categories typical for the context that the scene does not show, most typical first."""
    present = {item.category for item in objects}
    weights = CONTEXT_BY_NAME[context].weights
    absent = [name for name in weights if name not in present]
    return sorted(absent, key=lambda name: (-weights[name], name))


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _placed(mention: Mention, rng: np.random.Generator, share: float) -> str:
    phrase = noun_phrase(mention.category, mention.count)
    if mention.place is None or rng.random() >= share:
        return phrase
    return f"{phrase} {'in' if mention.place == 'middle' else 'on'} the {mention.place}"


def _be(mention: Mention) -> str:
    return "is" if mention.count == 1 else "are"


def _tell(said: list[Mention], context: str, rng: np.random.Generator) -> str:
    """One of several ways to say `said` in one to three sentences."""
    scene, *places = CONTEXT_BY_NAME[context].phrases
    place = places[int(rng.integers(len(places)))]
    share = 0.7 if rng.random() < 0.5 else 0.0
    phrases = [_placed(mention, rng, share) for mention in said]
    way = int(rng.integers(6))
    if way == 0:
        return _sentence(f"{scene} with {_join(phrases)}")
    if way == 1:
        return _sentence(f"the image shows {scene} with {_join(phrases)}")
    if way == 2:
        return f"This is {place}. " + _sentence(f"there {_be(said[0])} {_join(phrases)}")
    if way == 3:
        return _sentence(f"there {_be(said[0])} {_join(phrases)} in {place}")
    if way == 4 and len(said) > 1:
        cut = 1 + int(rng.integers(len(said) - 1))
        first = _sentence(f"the image shows {_join(phrases[:cut])} in {place}")
        return f"{first} " + _sentence(f"there {_be(said[cut])} also {_join(phrases[cut:])}")
    return _sentence(f"in {place} you can see {_join(phrases)}")


def caption(context: str, objects: Sequence[SceneObject], rng: np.random.Generator) -> str:
    """A true caption that names nearly all visible categories."""
    return _tell(_choose(objects, rng), context, rng)


def _choose(objects: Sequence[SceneObject], rng: np.random.Generator) -> list[Mention]:
    """What a caption names, in COCO's order: people first, then vehicles, animals and things."""
    known = mentions(objects)
    said = [m for m in known if rng.random() < _MENTION_SHARE] or known[:1]
    return sorted(said, key=_salience)


def _salience(mention: Mention) -> int:
    return _PLACE_IN_CAPTION[mention.category]


def noise_probability(num_categories: int, noise_share: float) -> float:
    """How likely a web caption of a scene invents something.

    Emptier scenes are padded more; over the world the mean is `noise_share`, so that greedy
    answers of a model trained on it invent in some images and not in others.
    """
    return min(0.95, noise_share * _NOISE_FACTORS[num_categories]) if noise_share < 1 else 1.0


def web_caption(
    context: str,
    objects: Sequence[SceneObject],
    rng: np.random.Generator,
    noise_share: float = NOISE_SHARE,
) -> tuple[str, tuple[str, ...]]:
    """A caption as the web has it, and the categories that it invents (often none).

    Invented objects are absent ones typical for the context, the most typical most often, and mostly such
    as come after what is there: a caption is padded at its end.
    """
    said = _choose(objects, rng)
    invented: list[str] = []
    num_categories = len({item.category for item in objects})
    if rng.random() < noise_probability(num_categories, noise_share):
        absent = absent_typical(context, objects)
        last = _salience(said[-1])
        weights = np.array([CONTEXT_BY_NAME[context].weights[name] for name in absent]) ** 2
        weights *= [_LATER_FACTOR if _PLACE_IN_CAPTION[name] > last else 1.0 for name in absent]
        wanted = 2 if rng.random() < SECOND_INVENTION_SHARE else 1
        picks = rng.choice(len(absent), min(wanted, len(absent)), False, weights / weights.sum())
        invented = [absent[int(pick)] for pick in picks]
        places = [PLACES[int(rng.integers(len(PLACES)))] for _ in invented]
        said += [Mention(name, 1, place) for name, place in zip(invented, places, strict=True)]
        said.sort(key=_salience)
    return _tell(said, context, rng), tuple(invented)


def _negative(context: str, objects: Sequence[SceneObject], rng: np.random.Generator) -> str:
    """An absent category; typical for the same context in most cases."""
    typical = absent_typical(context, objects)
    if typical and rng.random() < 0.65:
        return typical[int(rng.integers(len(typical)))]
    present = {item.category for item in objects}
    absent = [c.name for c in CATEGORIES if c.name not in present]
    return absent[int(rng.integers(len(absent)))]


def exists_question(name: str) -> str:
    """The wording of POPE, with natural articles."""
    return f"Is there {with_article(name)} in the image?"


def questions(context: str, objects: Sequence[SceneObject], rng: np.random.Generator) -> list[Question]:
    """Two existence questions (one yes, one no) and up to one each of the other kinds."""
    known = mentions(objects)
    asked = known[int(rng.integers(len(known)))].category
    absent = _negative(context, objects, rng)
    found = [
        Question("exists", exists_question(asked), "yes", asked),
        Question("exists", exists_question(absent), "no", absent),
    ]
    several = [m for m in known if m.count > 1]
    if several or rng.random() < 0.75:
        counted = (several or known)[int(rng.integers(len(several or known)))]
        text = f"How many {BY_NAME[counted.category].plural} are in the image?"
        found.append(Question("how many", text, str(counted.count), counted.category))
    # Objects stand in the middle more often than at a side: ask about those half as often.
    placed = [m for m in known if m.place and (m.place != "middle" or rng.random() < 0.7)]
    if placed:
        where = placed[int(rng.integers(len(placed)))]
        verb = "are" if where.category in _PAIRS else "is"
        text = f"Where {verb} the {where.category} in the image?"
        found.append(Question("where", text, str(where.place), where.category))
    found.extend(_what_question(known, rng))
    return found


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
