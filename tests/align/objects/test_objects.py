"""Object extraction: CHAIR's published behaviour, its mended twin, and where mentions stand."""

from __future__ import annotations

import time

import pytest

from align.objects.mentions import MODES, Mode, categories, find_objects
from tests.repository import REPO

NAMES = categories()


def found(text: str, mode: Mode) -> list[str]:
    return [mention.category for mention in find_objects(text, mode)]


@pytest.mark.parametrize(
    ("text", "official", "strict"),
    [
        ("A man riding a motor bike.", ["person"], ["person", "motorcycle"]),
        ("Three wine glasses and two knives", ["wine glass", "knife"], ["wine glass", "knife"]),
        ("hot dog and a dog", ["hot dog", "dog"], ["hot dog", "dog"]),
        ("The seat of the toilet", ["toilet"], ["toilet"]),
        ("A toilet seat.", ["toilet"], ["toilet"]),
        ("tennis racket", ["tennis racket"], ["tennis racket"]),
        ("a bus", [], ["bus"]),
        ("two buses", ["bus"], ["bus"]),
        ("a tie and two ties", ["tie"], ["tie", "tie"]),
        ("A bow tie", ["tie"], ["tie"]),
        ("a baby elephant near a passenger jet", ["elephant", "airplane"], ["elephant", "airplane"]),
        ("Two people, three sheep, policemen", ["person", "sheep", "person"], ["person", "sheep", "person"]),
        ("the man's dog isn't a cat", ["person", "dog", "cat"], ["person", "dog", "cat"]),
        ("a motor, bike", ["bicycle"], ["bicycle"]),
        ("There is no dog, nor one without a cat", ["dog", "cat"], []),
        ("An orange cat and an orange.", ["orange", "cat", "orange"], ["cat", "orange"]),
        ("a train station, a computer mouse", ["train", "laptop", "mouse"], ["mouse"]),
        ("**Dog** (*cat*), a ‘cow’—or `cup`…", ["dog", "cat", "cow", "cup"], ["dog", "cat", "cow", "cup"]),
        ("Is it the dog's. A cat--not...", ["dog", "cat"], ["dog", "cat"]),
        ("", [], []),
    ],
)
def test_extraction(text: str, official: list[str], strict: list[str]) -> None:
    assert found(text, "official") == official
    assert found(text, "strict") == strict


def test_mentions_stand_where_they_say() -> None:
    text = "İ: A Fire-Hydrant, two\nteddy  bears; “Dogs'” bowl."
    strict = find_objects(text, "strict")
    assert [mention.text for mention in strict] == ["Fire-Hydrant", "teddy  bears", "Dogs", "bowl"]
    for mode in MODES:
        for mention in find_objects(text, mode):
            assert text[mention.start : mention.end] == mention.text


@pytest.mark.parametrize("text", ["a" + "'" * 200_000 + "x", "'s" * 200_000, "'" * 200_000 + "x"])
def test_a_long_run_of_quotes_is_read_in_one_pass(text: str) -> None:
    start = time.monotonic()
    assert found(text, "official") == []
    assert time.monotonic() - start < 20


def test_every_category_is_found_by_its_own_name() -> None:
    assert len(NAMES) == 80 and len(set(NAMES)) == 80
    for name in NAMES:
        assert found(f"A {name} on the left.", "strict") == [name]
    missed = [name for name in NAMES if found(f"A {name} on the left.", "official") != [name]]
    assert missed == ["bus"]


def test_every_plural_of_the_embedded_world_is_found() -> None:
    world = pytest.importorskip("data_tools.scenes.categories")
    for category in world.CATEGORIES:
        assert found(f"There are three {category.plural} in a scene.", "strict") == [category.name]


def test_the_vocabulary_names_its_source() -> None:
    folder = REPO / "align" / "objects"
    header = (folder / "chair_synonyms.txt").read_text().split("person", 1)[0]
    assert "LisaAnne/Hallucination" in header and "BSD-2-Clause" in header
    assert "Redistribution" in (folder / "chair_synonyms.LICENSE").read_text()


def test_wordnets_singulars_are_a_variant_of_the_official_reading() -> None:
    text = "A bus, two buses, men and skis. Vases, wine glasses."
    by_pattern = [item.category for item in find_objects(text)]
    by_wordnet = [item.category for item in find_objects(text, singulariser="wordnet")]
    assert by_pattern == ["bus", "person", "skis", "vase", "wine glass"]
    assert by_wordnet == ["bus", "bus", "skis", "wine glass"]
