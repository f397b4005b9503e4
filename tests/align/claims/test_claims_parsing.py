"""Noun phrases: number, colour, place, relation; hand-read sentences, and a counter of its own kind."""

from __future__ import annotations

import time

import pytest

from align.claims import Said, read_text


def one(text: str) -> Said:
    found = read_text(text)
    assert len(found) == 1, found
    return found[0]


def counts(text: str) -> list[tuple[str, int | None]]:
    return [(said.category, said.count) for said in read_text(text)]


@pytest.mark.parametrize(
    ("phrase", "category", "count"),
    [
        ("a dog", "dog", 1),
        ("an apple", "apple", 1),
        ("one dog", "dog", 1),
        ("a single dog", "dog", 1),
        ("two dogs", "dog", 2),
        ("twelve donuts", "donut", 12),
        ("3 cats", "cat", 3),
        ("a dozen donuts", "donut", 12),
        ("two dozen donuts", "donut", 24),
        ("a couple of dogs", "dog", 2),
        ("a couple dogs", "dog", 2),
        ("a pair of skis", "skis", 1),
        ("two pairs of scissors", "scissors", 2),
        ("a pair of dogs", "dog", 2),
        ("some broccoli", "broccoli", 1),
        ("two heads of broccoli", "broccoli", 2),
        ("a slice of pizza", "pizza", 1),
        ("three large slices of pizza", "pizza", 3),
        ("dogs", "dog", None),
        ("some dogs", "dog", None),
        ("several small dogs", "dog", None),
        ("many people", "person", None),
        ("a few cows", "cow", None),
        ("a large group of people", "person", None),
        ("a herd of sheep", "sheep", None),
        ("several sheep", "sheep", None),
        ("a sheep", "sheep", 1),
        ("four sheep", "sheep", 4),
        ("dog", "dog", 1),
        ("two small brown sleeping dogs", "dog", 2),
        ("two sleeping dogs", "dog", 2),
        ("a two-story bus", "bus", 1),
        ("three more dogs", "dog", 3),
        ("two dog", "dog", 2),
        ("both dogs", "dog", 2),
        ("the dog", "dog", 1),
        ("the two dogs", "dog", 2),
        ("these dogs", "dog", None),
        ("a hot dog", "hot dog", 1),
        ("two glasses of wine and a wine glass", "wine glass", 1),
    ],
)
def test_numbers(phrase: str, category: str, count: int | None) -> None:
    assert counts(phrase) == [(category, count)]
    assert counts(f"There is {phrase}.") == [(category, count)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("two chefs cutting pizza", [("person", 2), ("pizza", 1)]),
        ("a cook cutting carrots", [("carrot", None)]),
        ("a statue holds knives", [("knife", None)]),
        ("A man riding horses", [("person", 1), ("horse", None)]),
        ("a bowl of oranges", [("bowl", 1), ("orange", None)]),
        ("a picture of dogs", [("dog", None)]),
        ("a man's tie", [("person", 1), ("tie", 1)]),
        ("a train station", []),
    ],
)
def test_a_number_belongs_to_its_own_noun(text: str, found: list[tuple[str, int | None]]) -> None:
    assert counts(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "There is no dog.",
        "There are no dogs.",
        "A field without a dog.",
        "No other dogs here.",
        "There isn't a dog.",
        "There aren't any dogs.",
        "I don't see any dogs.",
        "It is not a dog.",
        "There are zero dogs.",
        "There is no dog or cat.",
        "",
        " \n\t",
        "The sky is blue.",
    ],
)
def test_what_is_denied_is_not_said(text: str) -> None:
    assert read_text(text) == []


def test_a_denial_ends_where_it_ends() -> None:
    assert counts("There is no dog. A cat or a bird sits there.") == [("cat", 1), ("bird", 1)]
    assert counts("Not only a dog but a cat.") == [("dog", 1), ("cat", 1)]


@pytest.mark.parametrize(
    ("text", "colour"),
    [
        ("a red car", "red"),
        ("a bright red sports car", "red"),
        ("red cars", "red"),
        ("The car is red.", "red"),
        ("The car is dark blue.", "blue"),
        ("a grey cat", "gray"),
        ("an orange cat", "orange"),
        ("a black and white cat", "black"),
        ("a cat with a white collar", None),
        ("a car", None),
    ],
)
def test_colours(text: str, colour: str | None) -> None:
    assert one(text).colour == colour


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a dog on the left", "left"),
        ("a dog on the left side of the image", "left"),
        ("a dog is standing on the far right", "right"),
        ("a dog in the middle", "middle"),
        ("a dog in the center of the picture", "middle"),
        ("two dogs in the centre", "middle"),
        ("a dog at the top", "top"),
        ("a dog in the top left corner", "left"),
        ("a dog at the bottom right", "right"),
        ("a dog in the top middle", "top"),
        ("a dog to the right", "right"),
        ("On the left, there is a dog.", "left"),
        ("In the middle of the image you can see a dog", "middle"),
        ("a dog in the middle of a street", None),
        ("a dog on the left side of a house", None),
        ("a dog", None),
    ],
)
def test_places(text: str, place: str | None) -> None:
    assert one(text).place == place


def test_a_place_belongs_to_one_phrase() -> None:
    found = read_text("A dog on the left, a cat and a cow in the middle, on the right a bird.")
    assert [said.place for said in found] == ["left", None, "middle", "right"]


@pytest.mark.parametrize(
    ("text", "relation"),
    [
        ("a red car to the left of a dog", ("left of", "dog")),
        ("The car is right of the dog.", ("right of", "dog")),
        ("a car on the right side of a dog", ("right of", "dog")),
        ("a cat sitting on top of a car", ("on", "car")),
        ("a person riding on a horse", ("on", "horse")),
        ("a cat under two chairs", ("under", "chair")),
        ("a cat beside the dog", ("next to", "dog")),
        ("a kite above a person", ("above", "person")),
        ("a cat below a clock", ("below", "clock")),
        ("a cat behind a dog", ("behind", "dog")),
        ("a cat in front of a dog", ("in front of", "dog")),
        ("a cat and a dog", None),
        ("a cat. On a dog", None),
        ("a cat on the left and a dog", None),
    ],
)
def test_relations(text: str, relation: tuple[str, str] | None) -> None:
    found = read_text(text)
    assert (found[0].relation, found[1].relation) == (relation, None)


def test_the_span_holds_number_colour_and_place() -> None:
    text = "Look: two red cars on the left, and the dog."
    first, second = read_text(text)
    assert (first.text, second.text) == ("two red cars on the left", "the dog")
    assert all(said.text == text[said.start : said.end] for said in (first, second))
    assert (first.opening, first.noun, second.opening) == ("number", "car", "definite")


def test_sentences_and_lists_are_told() -> None:
    found = read_text("A man and woman... A dog, cats. Is it a bird?")
    assert [said.sentence for said in found] == [0, 0, 1, 1, 2]
    assert [said.listed for said in found] == [False, True, False, True, False]


def test_other_scripts_do_no_harm() -> None:
    text = "Der Bär — 犬 — “a dog’s” café; two ’cats’ 🐕 on the left. İ a cow"
    assert [(said.category, said.count) for said in read_text(text)] == [("dog", 1), ("cat", 2), ("cow", 1)]
    assert all(said.text == text[said.start : said.end] for said in read_text(text))


@pytest.mark.parametrize(
    "piece", ["a dog, ", "two red cars on the left of a dog ", "no or dog ", "very ", "a  ", "of ", "- dog "]
)
def test_reading_takes_linear_time(piece: str) -> None:
    def seconds(times: int) -> float:
        start = time.process_time()
        read_text(piece * times)
        return time.process_time() - start

    seconds(200)
    short = min(seconds(1_000) for _ in range(3))
    assert min(seconds(8_000) for _ in range(2)) < 8 * short * 4 + 0.1


def test_a_long_run_of_blanks_takes_no_time() -> None:
    start = time.process_time()
    assert len(read_text("a dog" + " " * 50_000 + "a dog" + " " * 50_000 + "x")) == 2
    assert time.process_time() - start < 2
