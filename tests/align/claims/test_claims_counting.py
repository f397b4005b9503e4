"""Instances named, repetitions and claims; and an independent counter on generated captions."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from align.claims import (
    PictureTruth,
    StatedClaim,
    claims_of,
    measure_answer,
    named_instances,
    read_text,
    repeated_categories,
)
from data_tools.scenes.categories import CATEGORIES, CONTEXTS
from data_tools.scenes.language import NUMBERS, caption, noun_phrase, web_caption
from data_tools.scenes.render import make_scene


def counts(text: str) -> dict[str, int]:
    return {category: total.count for category, total in named_instances(read_text(text)).items()}


KITCHEN = "In a small kitchen you can see a bottle, an apple, a cake and two apples."
OFFICE = "This is an office. There is a person, a laptop and a laptop."


@pytest.mark.parametrize(
    ("text", "named", "repeated"),
    [
        (KITCHEN, {"bottle": 1, "apple": 3, "cake": 1}, ["apple"]),
        (OFFICE, {"person": 1, "laptop": 2}, ["laptop"]),
        ("There are three people and a person on the left.", {"person": 4}, ["person"]),
        ("A dog, a dog, a sheep.", {"dog": 2, "sheep": 1}, ["dog"]),
        ("A dog on the left and a dog on the right.", {"dog": 2}, ["dog"]),
        ("A dog sits here. The dog is brown. His dog waits.", {"dog": 1}, []),
        ("The dog sees a dog.", {"dog": 2}, []),
        ("The dogs sleep. The two dogs dream.", {"dog": 2}, []),
        ("There are two dogs. One dog is brown.", {"dog": 2}, []),
        ("There are two dogs. A dog is brown.", {"dog": 3}, ["dog"]),
        ("One dog and one dog.", {"dog": 2}, ["dog"]),
        ("A man and a woman.", {"person": 2}, []),
        ("A man and woman.", {"person": 2}, []),
        ("Three people, a man and two women.", {"person": 3}, []),
        ("Two people, a man, a man, a man.", {"person": 3}, ["person"]),
        ("A red car and a blue car.", {"car": 2}, []),
        ("A red car and a red car.", {"car": 2}, ["car"]),
        ("A red car and a car.", {"car": 2}, ["car"]),
        ("Dogs.", {"dog": 2}, []),
        ("Several dogs. A dog barks.", {"dog": 2}, []),
        ("Several dogs, one dog, another dog and two more dogs.", {"dog": 4}, []),
        ("A herd of cows. There are nine cows.", {"cow": 9}, []),
        ("Several dogs, several dogs.", {"dog": 2}, ["dog"]),
        ("A cat rests. It seems to be a white cat.", {"cat": 1}, []),
        ("There seems to be a cat. There may be a cat.", {"cat": 2}, ["cat"]),
        ("A dog and another dog.", {"dog": 2}, []),
        ("A dog, another dog and a dog.", {"dog": 3}, ["dog"]),
        ("Dog, dog and sheep.", {"dog": 2, "sheep": 1}, ["dog"]),
        ("A dog. Dog is brown.", {"dog": 1}, []),
        ("A pair of skis and two pairs of skis.", {"skis": 3}, ["skis"]),
        ("Some broccoli, some broccoli.", {"broccoli": 2}, ["broccoli"]),
        ("A hot dog and a dog.", {"hot dog": 1, "dog": 1}, []),
        ("No dog, a cat.", {"cat": 1}, []),
        ("", {}, []),
    ],
)
def test_instances_and_repetitions(text: str, named: dict[str, int], repeated: list[str]) -> None:
    assert counts(text) == named
    assert repeated_categories(text) == repeated


def test_claims_are_distinct_and_in_order() -> None:
    text = "Two red cars to the left of a dog, a dog on the right. The dog is brown. A cat. The cars are red."
    assert claims_of(text) == [
        StatedClaim("presence", "car", ""),
        StatedClaim("number", "car", "2"),
        StatedClaim("colour", "car", "red"),
        StatedClaim("relation", "car", "left of:dog"),
        StatedClaim("presence", "dog", ""),
        StatedClaim("number", "dog", "2"),
        StatedClaim("place", "dog", "right"),
        StatedClaim("colour", "dog", "brown"),
        StatedClaim("presence", "cat", ""),
    ]
    assert claims_of("") == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("A dog.", []),
        ("A dog. The dog.", []),
        ("A dog, a dog.", ["2"]),
        ("Dogs.", []),
        ("Dogs and two dogs.", []),
        ("Three dogs.", ["3"]),
    ],
)
def test_a_number_is_a_claim_where_all_is_said(text: str, numbers: list[str]) -> None:
    assert [claim.value for claim in claims_of(text) if claim.kind == "number"] == numbers


# A counter of its own: a regular expression over the embedded world's words, and sums.
_FORMS = {form: category.name for category in CATEGORIES for form in (category.name, category.plural)}
_FORMS |= {"skis": "skis", "scissors": "scissors", "broccoli": "broccoli"}
_AMOUNT = {"a": 1, "an": 1, "some": 1} | {word: number for number, word in enumerate(NUMBERS) if number}
_PHRASE = re.compile(
    rf"\b({'|'.join(_AMOUNT)}) (?:pairs? of |heads? of |(?:red|blue|green|yellow|purple|black) )?"
    rf"({'|'.join(re.escape(form) for form in sorted(_FORMS, key=len, reverse=True))})\b"
)


def counter(text: str) -> tuple[Counter[str], list[str]]:
    """Category -> instances named; and the categories behind more than one number."""
    named: Counter[str] = Counter()
    phrases: Counter[str] = Counter()
    for number, form in _PHRASE.findall(text.lower()):
        named[_FORMS[form]] += _AMOUNT[number]
        phrases[_FORMS[form]] += 1
    return named, [category for category, times in phrases.items() if times > 1]


def counter_values(named: Counter[str], there: Counter[str]) -> dict[str, float]:
    return {
        "instances_named": sum(named.values()),
        "instances_right": sum(min(number, there[name]) for name, number in named.items()),
        "instances_there": sum(there.values()),
        "kinds_named": len(named),
        "kinds_invented": sum(name not in there for name in named),
        "kinds_overcounted": sum(0 < there[name] < number for name, number in named.items()),
    }


def drifted(rng: np.random.Generator) -> str:
    """A caption as a policy tells that repeats itself."""
    names = [CATEGORIES[int(rng.integers(len(CATEGORIES)))].name for _ in range(3)]
    said = [noun_phrase(names[int(rng.integers(3))], int(rng.integers(1, 5))) for _ in range(5)]
    places = [("", " on the left", " in the middle", " on the right")[int(rng.integers(4))] for _ in said]
    phrases = [phrase + place for phrase, place in zip(said, places, strict=True)]
    scene = CONTEXTS[int(rng.integers(len(CONTEXTS)))].phrases[0]
    return f"{scene.capitalize()} with {', '.join(phrases[:-1])} and {phrases[-1]}."


def test_an_independent_counter_agrees_on_the_embedded_world() -> None:
    rng = np.random.default_rng(0)
    checked = repeated = 0
    for index in range(150):
        scene = make_scene(0, "test", index)
        there = Counter(item.category for item in scene.objects)
        texts = [caption(scene.context, scene.objects, rng), drifted(rng), drifted(rng)]
        texts += [web_caption(scene.context, scene.objects, rng, 1.0)[0]]
        for text in texts:
            named, again = counter(text)
            assert counts(text) == dict(named), text
            assert repeated_categories(text) == again, text
            values = measure_answer(text, PictureTruth(dict(there)))
            expected = counter_values(named, there)
            assert {name: values[name] for name in expected} == expected, text
            assert values["repeats"] == bool(again)
            checked, repeated = checked + 1, repeated + bool(again)
    assert checked == 600 and repeated > 200
