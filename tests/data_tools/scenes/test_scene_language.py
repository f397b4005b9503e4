"""What is said about a scene: true captions, stated noise, true and balanced questions."""

from __future__ import annotations

import re
from collections import Counter
from itertools import permutations

import pytest

from data_tools.scenes.categories import BY_NAME, CATEGORIES, typical_objects
from data_tools.scenes.colours import COLOURS
from data_tools.scenes.language import (
    NOISE_SHARE,
    NUMBERS,
    PLACES,
    RELATIONS,
    WRONG_PER_NOISE,
    Mention,
    absent_typical,
    caption,
    mentions,
    noun_phrase,
    place_of,
    relation_of,
    web_caption,
    with_article,
)
from data_tools.scenes.questions import number_question, questions, relation_question
from data_tools.scenes.render import SceneObject, make_scene, scene_rng


def named_in(text: str) -> set[str]:
    """Categories named in a text; longer names first, so that a hot dog is no dog."""
    found, text = set(), text.lower()
    forms = [(form, c.name) for c in CATEGORIES for form in (c.plural, c.name)]
    for form, name in sorted(forms, key=lambda pair: -len(pair[0])):
        text, times = re.subn(rf"\b{form}\b", " ", text)
        if times:
            found.add(name)
    return found


CLAIM = re.compile(
    r"(?P<number>an?|some|two|three|four|five|six|seven) (?:pairs? of |heads? of )?"
    rf"(?:(?P<color>{'|'.join(COLOURS)}) )?(?P<noun>[a-z ]+?)"
    r"(?: (?:on|in) the (?P<place>left|middle|right))?(?: in .*)?$"
)
NOUNS = {form.split(" of ")[-1]: c.name for c in CATEGORIES for form in (c.name, c.plural)}


def claims_in(text: str) -> list[tuple[str, int, str | None, str | None]]:
    """(category, number, color, place) of each thing that a caption lists; relations are cut apart."""
    found = []
    for part in re.split(r", | and |\. | (?:to the (?:left|right) of|next to) | with | also ", text.lower()):
        part = re.sub(r"^.*?(?:can see|shows|there is|there are) ", "", part.rstrip("."))
        match = CLAIM.match(part)
        if match and match["noun"] in NOUNS:
            number = NUMBERS.index(match["number"]) if match["number"] in NUMBERS else 1
            found.append((NOUNS[match["noun"]], number, match["color"], match["place"]))
    return found


def test_clean_captions_are_true_and_nearly_complete() -> None:
    said_count = shown_count = coloured = placed = 0
    for index in range(400):
        scene = make_scene(0, "dev", index)
        shown = Counter(item.category for item in scene.objects)
        text = caption(scene.context, scene.objects, scene_rng(0, "test", index))
        claims = claims_in(text)
        assert {name for name, *_ in claims} == named_in(text), text
        assert len(claims) == len(named_in(text)), f"a category twice: {text}"
        for name, number, color, place in claims:
            items = [item for item in scene.objects if item.category == name]
            assert number == len(items), text
            assert color is None or {item.color for item in items} == {color}, text
            assert place is None or [place_of(item) for item in items] == [place], text
            coloured, placed = coloured + (color is not None), placed + (place is not None)
        said_count, shown_count = said_count + len(claims), shown_count + len(shown)
    assert said_count / shown_count > 0.88
    assert coloured > 150 and placed > 250


def test_relations_are_true() -> None:
    found: Counter[str] = Counter()
    article = f"(?:an?|some) (?:pair of |(?:{'|'.join(COLOURS)}) )?"
    for index in range(400):
        scene = make_scene(0, "dev", index)
        text = caption(scene.context, scene.objects, scene_rng(0, "test", index))
        for relation in RELATIONS:
            pairs = [
                (one, other)
                for one, other in permutations(mentions(scene.objects), 2)
                if re.search(rf"{one.category} {relation} {article}{other.category}\b", text)
            ]
            assert len(pairs) == text.count(f" {relation} "), text
            assert all(relation_of(one, other) == relation for one, other in pairs), text
            found[relation] += len(pairs)
    assert min(found[relation] for relation in RELATIONS) >= 8, found


def test_beside_is_clear_of_doubt() -> None:
    def box(left: int, top: int = 40, size: int = 20) -> Mention:
        return Mention("dog", 1, None, None, (left, top, size, size))

    # Centres 14 pixels apart at least, more across than down; next to: up to 6 pixels of ground between.
    assert relation_of(box(0), box(50)) == "to the left of"
    assert relation_of(box(50), box(0)) == "to the right of"
    assert relation_of(box(0), box(13)) is None
    assert relation_of(box(0), box(26)) == relation_of(box(26), box(0)) == "next to"
    assert relation_of(box(0), box(27)) == "to the left of"
    assert relation_of(box(0), box(30, top=71)) is None
    assert relation_of(box(0), Mention("cup", 2, None)) is None


def test_web_captions_invent_in_the_stated_share() -> None:
    noisy = total = 0
    claimed: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for index in range(1500):
        scene = make_scene(0, "train", index)
        shown = Counter(item.category for item in scene.objects)
        text, noise = web_caption(scene.context, scene.objects, scene_rng(0, "test", index))
        assert named_in(text) - set(shown) == set(noise.invented), text
        assert set(noise.invented) <= set(absent_typical(scene.context, scene.objects))
        noisy, total = noisy + bool(noise.invented), total + 1
        wrong.update(kind for kind, _ in noise.wrong)
        false_numbers = {name for kind, name in noise.wrong if kind == "number"}
        for name, number, color, place in claims_in(text):
            if name in shown:
                assert (number != shown[name]) == (name in false_numbers), text
                claimed["several"] += shown[name] > 1
                claimed["one"] += shown[name] == 1
                claimed["color"] += color is not None
                claimed["place"] += place is not None
    assert noisy / total == pytest.approx(NOISE_SHARE, abs=0.04)
    share = WRONG_PER_NOISE * NOISE_SHARE
    assert wrong["color"] / claimed["color"] == pytest.approx(share, abs=0.03)
    assert wrong["place"] / claimed["place"] == pytest.approx(share, abs=0.03)
    numbers = claimed["several"] + claimed["one"] / 2  # a false "two" of one thing is half as frequent
    assert wrong["number"] / numbers == pytest.approx(share, abs=0.03)
    assert wrong["relation"] > 20


def test_the_extremes_of_noise() -> None:
    scene = make_scene(0, "train", 0)
    for share, expected in ((0.0, False), (1.0, True)):
        texts = [web_caption(scene.context, scene.objects, scene_rng(0, "n", i), share)
                 for i in range(20)]  # fmt: skip
        assert all(bool(noise.invented) == expected for _, noise in texts)
        assert any(noise.wrong for _, noise in texts) == expected


def test_questions_are_true_and_balanced() -> None:
    answers: Counter[tuple[str, str]] = Counter()
    near = 0
    for index in range(400):
        scene = make_scene(0, "dev", index)
        counts = Counter(item.category for item in scene.objects)
        for question in questions(scene.context, scene.objects, scene_rng(0, "test", index)):
            answers[question.kind, question.answer] += 1
            name, category = question.category, BY_NAME[question.category]
            if question.kind == "exists":
                assert question.answer == ("yes" if counts[name] else "no")
                near += question.answer == "no" and name in typical_objects(scene.context)
            elif question.kind == "how many":
                assert question.answer == str(counts[name]) and category.plural in question.text
            elif question.kind == "where":
                (item,) = (o for o in scene.objects if o.category == name)
                assert question.answer == place_of(item)
            elif question.kind == "color":
                (item,) = (o for o in scene.objects if o.category == name)
                assert question.answer == item.color and question.text == f"What color is the {name}?"
            elif question.kind == "verify":
                assert (question.answer == "yes") == holds(question.text, scene.objects), question
            else:
                same = [n for n in counts if BY_NAME[n].supercategory == category.supercategory]
                assert same == [name] and question.answer == name
    assert answers["exists", "yes"] == answers["exists", "no"]
    assert near / answers["exists", "no"] >= 0.5
    assert {kind for kind, _ in answers} == {"exists", "how many", "where", "what", "color", "verify"}
    yes, no = answers["verify", "yes"], answers["verify", "no"]
    assert yes / (yes + no) == pytest.approx(0.5, abs=0.08)
    for kind, most in (("how many", 0.45), ("where", 0.4), ("color", 0.25)):
        of_kind = [number for (k, _), number in answers.items() if k == kind]
        assert max(of_kind) / sum(of_kind) < most, f"{kind}: one answer is right too often"


def holds(question: str, objects: tuple[SceneObject, ...]) -> bool:
    """Whether a question of kind verify is to be answered yes, read from its words alone."""
    boxes = {item.category: item.bbox for item in objects}
    counts = Counter(item.category for item in objects)
    number = r"(?:Are there|Is there only) (\w+) (?:heads? of |pairs? of )?(.+) in the image\?"
    if match := re.fullmatch(number, question):
        return counts[NOUNS[match[2]]] == NUMBERS.index(match[1])
    if match := re.fullmatch(r"(?:Is|Are) the (.+) to the (left|right) of the (.+)\?", question):
        one, other = boxes[match[1]], boxes[match[3]]
        is_left = one[0] + one[2] / 2 < other[0] + other[2] / 2
        return is_left == (match[2] == "left")
    if match := re.fullmatch(rf"(?:Is|Are) the (.+) (?:on|in) the ({'|'.join(PLACES)})\?", question):
        return [place_of(o) for o in objects if o.category == match[1]] == [match[2]]
    match = re.fullmatch(rf"Is the (.+) ({'|'.join(COLOURS)})\?", question)
    assert match, question
    return {o.color for o in objects if o.category == match[1]} == {match[2]}


def test_questions_of_one_read_well() -> None:
    assert [number_question(name, count) for name, count in (
        ("dog", 1), ("skis", 1), ("broccoli", 1), ("bus", 2), ("person", 7), ("scissors", 3),
    )] == [
        "Is there only one dog in the image?", "Is there only one pair of skis in the image?",
        "Is there only one head of broccoli in the image?", "Are there two buses in the image?",
        "Are there seven people in the image?", "Are there three pairs of scissors in the image?",
    ]  # fmt: skip
    assert relation_question("skis", "to the left of", "dog") == "Are the skis to the left of the dog?"


def test_places_are_clear_of_the_boundaries() -> None:
    def at(left: int) -> str | None:
        return place_of(SceneObject("dog", (left, 0, 20, 20), 400, 1.0))

    # Thirds end at 32 and 64; a centre within 4 pixels of them has no clear place.
    assert [at(x) for x in (0, 18, 19, 25, 26, 38, 50, 51, 58, 76)] == [
        "left", "left", None, None, "middle", "middle", "middle", None, "right", "right",
    ]  # fmt: skip


def test_mentions_count_and_place() -> None:
    objects = [
        SceneObject("cup", (0, 0, 20, 20), 100, 1.0),
        SceneObject("cup", (40, 0, 20, 20), 100, 1.0),
        SceneObject("dog", (70, 0, 20, 20), 300, 1.0),
    ]
    dog = Mention("dog", 1, "right", None, (70, 0, 20, 20))
    assert mentions(objects) == [dog, Mention("cup", 2, None)]


def test_a_color_is_said_of_several_only_if_they_share_it() -> None:
    def cups(*colours: str) -> list[SceneObject]:
        return [SceneObject("cup", (0, 0, 20, 20), 100, 1.0, color) for color in colours]

    assert [mentions(cups(*c))[0].color for c in (("red",), ("red", "red"), ("red", "blue"))] == [
        "red", "red", None,
    ]  # fmt: skip
    assert noun_phrase("cup", 2, "red") == "two red cups"
    assert noun_phrase("umbrella", 1, "blue") == "a blue umbrella"


def test_plurals_and_articles() -> None:
    assert [noun_phrase(*pair) for pair in (
        ("cup", 2), ("person", 2), ("sheep", 3), ("knife", 2), ("mouse", 2), ("bus", 4),
        ("skis", 2), ("wine glass", 2), ("broccoli", 2), ("person", 1),
    )] == [
        "two cups", "two people", "three sheep", "two knives", "two mice", "four buses",
        "two pairs of skis", "two wine glasses", "two heads of broccoli", "a person",
    ]  # fmt: skip
    assert with_article("apple") == "an apple"
    assert with_article("scissors") == "a pair of scissors"
    assert with_article("broccoli") == "some broccoli"
