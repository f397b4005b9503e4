"""What people say about a scene: words, true captions, and web captions with noise.

Everything is true of the scene except what `web_caption` puts in on purpose. Context phrases avoid
CHAIR's object words (``table``, ``desk``, ``seat``), so that only real mentions count. A caption claims
presence, number ("two dogs"), colour ("a red car"), place ("on the left") and relation ("to the left of").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from align.objects.plurals import with_article
from data_tools.scenes.categories import BY_NAME, CATEGORIES, CONTEXT_BY_NAME
from data_tools.scenes.colours import COLOURED, COLOURS
from data_tools.scenes.render import IMAGE_SIZE, SceneObject

NOISE_SHARE = 0.6
"""Share of web captions that name at least one object which is not there."""
SECOND_INVENTION_SHARE = 0.3
"""Share of noisy captions that name two of them."""
WRONG_PER_NOISE = 0.2
"""Share of a web caption's numbers, places, colours and relations that are wrong, per share of noise."""
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
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven")
PLACES = ("left", "middle", "right")
RELATIONS = ("to the left of", "to the right of", "next to")

_PLACE_MARGIN = 4  # pixels between a third's border and a centre which is clearly inside
_CLEARLY_BESIDE = 14  # pixels between two centres
_CLOSE = 6  # pixels of ground between two boxes that stand next to each other
_MENTION_SHARE = 0.93
_COLOUR_SHARE = 0.8
_RELATION_SHARE = 0.7
_PLACE_SHARE = 0.72
_ONE_FACTOR = 0.5
"""Most things are there once: a false "two" is said of them half as often as a false number of several."""
_NOISE_FACTORS = {1: 1.45, 2: 1.35, 3: 0.85, 4: 0.5, 5: 0.35, 6: 0.3, 7: 0.3}
_LATER_FACTOR = 12.0
"""How much likelier an invention comes after all that is there than before."""
_PLACE_IN_CAPTION = {category.name: place for place, category in enumerate(CATEGORIES)}


@dataclass(frozen=True)
class Mention:
    """One category as a caption speaks of it."""

    category: str
    count: int
    place: str | None
    """left, middle or right, where one object is clearly there; None otherwise."""
    color: str | None = None
    """The colour of all objects of the category, where they share one."""
    box: tuple[int, int, int, int] | None = None
    """x, y, width, height of the one object; None where there are several."""


@dataclass(frozen=True)
class Noise:
    """What a web caption says that is not so."""

    invented: tuple[str, ...] = ()
    """Categories which are not there."""
    wrong: tuple[tuple[str, str], ...] = ()
    """(kind, category) of each false claim about what is there; kinds: number, place, color, relation."""


def noun_phrase(name: str, count: int, color: str | None = None) -> str:
    """``a dog``, ``two dogs``, ``a red car`` or ``two red cars``."""
    if count == 1:
        return with_article(name, color)
    return " ".join(word for word in (NUMBERS[count], color, BY_NAME[name].plural) if word)


def place_of(item: SceneObject) -> str | None:
    """The third of the image that holds the centre of `item`'s box, if clearly one of them."""
    third = IMAGE_SIZE / len(PLACES)
    centre = item.bbox[0] + item.bbox[2] / 2
    number = min(int(centre // third), len(PLACES) - 1)
    left_ok = number == 0 or centre - number * third >= _PLACE_MARGIN
    right_ok = number == len(PLACES) - 1 or (number + 1) * third - centre >= _PLACE_MARGIN
    return PLACES[number] if left_ok and right_ok else None


def relation_of(one: Mention, other: Mention) -> str | None:
    """How one single object stands to another: beside by their centres, next to by the ground between."""
    if one.box is None or other.box is None:
        return None
    (left, top, width, height), (other_left, other_top, other_width, other_height) = one.box, other.box
    across = left + width / 2 - other_left - other_width / 2
    down = top + height / 2 - other_top - other_height / 2
    if abs(across) < _CLEARLY_BESIDE or abs(down) > abs(across):
        return None
    gap = max(other_left - left - width, left - other_left - other_width)
    if 0 <= gap <= _CLOSE:
        return "next to"
    return "to the left of" if across < 0 else "to the right of"


def _turned(relation: str, one: Mention, other: Mention) -> str:
    """A false relation in place of a true one: the side turned round."""
    if relation == "next to" and one.box and other.box:
        relation = "to the left of" if one.box[0] < other.box[0] else "to the right of"
    return "to the right of" if relation == "to the left of" else "to the left of"


def mentions(objects: Sequence[SceneObject]) -> list[Mention]:
    """Every category of a scene once, with its count, largest objects first."""
    counts = Counter(item.category for item in objects)
    found: dict[str, Mention] = {}
    for item in sorted(objects, key=lambda item: -item.area):
        name, alone = item.category, counts[item.category] == 1
        colours = {other.color for other in objects if other.category == name}
        color = item.color if len(colours) == 1 else None
        place, box = (place_of(item), item.bbox) if alone else (None, None)
        found.setdefault(name, Mention(name, counts[name], place, color, box))
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


class _Speaker:
    """Puts mentions into phrases, with a stated share of false claims, and keeps a list of those."""

    def __init__(self, rng: np.random.Generator, wrong_share: float) -> None:
        self.rng, self.wrong_share = rng, wrong_share
        self.wrong: list[tuple[str, str]] = []

    def _false(self, kind: str, category: str, factor: float = 1.0) -> bool:
        if self.rng.random() >= factor * self.wrong_share:
            return False
        self.wrong.append((kind, category))
        return True

    def _other(self, value: str, values: Sequence[str]) -> str:
        others = [other for other in values if other != value]
        return others[int(self.rng.integers(len(others)))]

    def _noun(self, mention: Mention, real: bool) -> str:
        count, color = mention.count, mention.color
        if real and self._false("number", mention.category, _ONE_FACTOR if count == 1 else 1.0):
            more = count == 1 or (count < len(NUMBERS) - 1 and self.rng.random() < 0.5)
            count += 1 if more else -1
        if color is not None and self.rng.random() >= _COLOUR_SHARE:
            color = None
        if real and color is not None and self._false("color", mention.category):
            color = self._other(color, list(COLOURS))
        return noun_phrase(mention.category, count, color)

    def _placed(self, mention: Mention, real: bool) -> str:
        phrase, place = self._noun(mention, real), mention.place
        if place is None or self.rng.random() >= _PLACE_SHARE:
            return phrase
        if real and self._false("place", mention.category):
            place = self._other(place, PLACES)
        return f"{phrase} {'in' if place == 'middle' else 'on'} the {place}"

    def phrases(self, said: list[Mention], invented: Sequence[str]) -> list[str]:
        """One phrase a mention, or one for two neighbours that stand in a relation."""
        parts: list[str] = []
        rest = list(said)
        while rest:
            one = rest.pop(0)
            relation = relation_of(one, rest[0]) if rest else None
            if relation is None or self.rng.random() >= _RELATION_SHARE:
                parts.append(self._placed(one, one.category not in invented))
                continue
            other = rest.pop(0)
            # Number and colour stay true here: of two cups none would be the one left of the laptop.
            if self._false("relation", one.category):
                relation = _turned(relation, one, other)
            nouns = [self._noun(mention, False) for mention in (one, other)]
            parts.append(f"{nouns[0]} {relation} {nouns[1]}")
        return parts


def _tell(phrases: list[str], context: str, rng: np.random.Generator) -> str:
    """One of several ways to say the phrases in one to three sentences."""
    scene, *places = CONTEXT_BY_NAME[context].phrases
    place = places[int(rng.integers(len(places)))]
    # By the phrase and not by the truth: a false number would leave "there is two cups".
    verbs = ["are" if phrase.split()[0] in NUMBERS else "is" for phrase in phrases]
    way = int(rng.integers(6))
    if way == 0:
        return _sentence(f"{scene} with {_join(phrases)}")
    if way == 1:
        return _sentence(f"the image shows {scene} with {_join(phrases)}")
    if way == 2:
        return f"This is {place}. " + _sentence(f"there {verbs[0]} {_join(phrases)}")
    if way == 3:
        return _sentence(f"there {verbs[0]} {_join(phrases)} in {place}")
    if way == 4 and len(phrases) > 1:
        cut = 1 + int(rng.integers(len(phrases) - 1))
        first = _sentence(f"the image shows {_join(phrases[:cut])} in {place}")
        return f"{first} " + _sentence(f"there {verbs[cut]} also {_join(phrases[cut:])}")
    return _sentence(f"in {place} you can see {_join(phrases)}")


def caption(context: str, objects: Sequence[SceneObject], rng: np.random.Generator) -> str:
    """A true caption that names nearly all visible categories."""
    return _tell(_Speaker(rng, 0.0).phrases(_choose(objects, rng), ()), context, rng)


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


def _inventions(
    context: str, objects: Sequence[SceneObject], last: int, rng: np.random.Generator
) -> list[Mention]:
    """One or two absent objects that are typical for the context, with a place and a colour made up."""
    absent = absent_typical(context, objects)
    weights = np.array([CONTEXT_BY_NAME[context].weights[name] for name in absent]) ** 2
    weights *= [_LATER_FACTOR if _PLACE_IN_CAPTION[name] > last else 1.0 for name in absent]
    wanted = 2 if rng.random() < SECOND_INVENTION_SHARE else 1
    picks = rng.choice(len(absent), min(wanted, len(absent)), False, weights / weights.sum())
    found = []
    for name in (absent[int(pick)] for pick in picks):
        place = PLACES[int(rng.integers(len(PLACES)))]
        color = list(COLOURS)[int(rng.integers(len(COLOURS)))] if name in COLOURED else None
        found.append(Mention(name, 1, place, color))
    return found


def web_caption(
    context: str,
    objects: Sequence[SceneObject],
    rng: np.random.Generator,
    noise_share: float = NOISE_SHARE,
) -> tuple[str, Noise]:
    """A caption as the web has it, and what in it is not so (often nothing).

    Invented objects are absent ones typical for the context, the most typical most often, and mostly such
    as come after what is there: a caption is padded at its end. Of the numbers, places, colours and
    relations said of what is there, a share of `WRONG_PER_NOISE * noise_share` is wrong.
    """
    said = _choose(objects, rng)
    invented: list[Mention] = []
    num_categories = len({item.category for item in objects})
    if rng.random() < noise_probability(num_categories, noise_share):
        invented = _inventions(context, objects, _salience(said[-1]), rng)
    names = tuple(mention.category for mention in invented)
    speaker = _Speaker(rng, WRONG_PER_NOISE * noise_share)
    phrases = speaker.phrases(sorted(said + invented, key=_salience), names)
    return _tell(phrases, context, rng), Noise(names, tuple(speaker.wrong))
