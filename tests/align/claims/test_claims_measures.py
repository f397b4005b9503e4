"""Values and measures by hand."""

from __future__ import annotations

import pytest

from align.claims import (
    MEASURES,
    Box,
    PictureTruth,
    broken_marks,
    measure_answer,
    measures_for,
    worse_tail,
)
from align.claims.wording import ngrams_again

TRUTH = PictureTruth(
    counts={"dog": 1, "apple": 2, "car": 1, "person": 4},
    crowds=frozenset({"person"}),
    places={"dog": frozenset({"left"})},
    colours={"car": frozenset({"red"})},
    boxes={"dog": (Box(0, 0, 1, 1),), "car": (Box(5, 0, 1, 1),)},
)
TEXT = "A dog on the left, a dog in the middle, two apples, a cat, a blue car right of a dog and six people."


def of(name: str, *answers: dict[str, float]) -> float | None:
    return next(measure for measure in MEASURES if measure.name == name).of(answers)


def test_values_by_hand() -> None:
    values = measure_answer(TEXT, TRUTH)
    expected = {
        "answers": 1, "answer_words": 24, "repeats": 1, "broken": 0,
        "kinds_named": 5, "kinds_right": 4, "kinds_invented": 1, "kinds_there": 4,
        # people are a crowd: left out; dogs 3 of 1, apples 2 of 2, cat 1 of 0, car 1 of 1
        "instances_named": 7, "instances_right": 4, "instances_there": 4,
        "kinds_overcounted": 1, "kinds_counted": 3,
        # three dogs are wrong, two apples right, six people are not known
        "number_right": 1, "number_claims": 2,
        "place_right": 1, "place_claims": 2, "colour_right": 0, "colour_claims": 1,
        "relation_right": 1, "relation_claims": 1,
    }  # fmt: skip
    assert {name: values[name] for name in expected} == expected


def test_measures_are_ratios_of_sums() -> None:
    answers = [measure_answer(TEXT, TRUTH), measure_answer("Two apples.", TRUTH), measure_answer("", TRUTH)]
    expected = {
        "distinct_invention": 100 / 6, "object_recall": 500 / 12, "object_f1": 200 * 5 / (6 + 12),
        "instance_precision": 600 / 9, "instance_recall": 600 / 12, "instance_f1": 200 * 6 / (9 + 12),
        "overcounted": 100 / 4, "number_accuracy": 200 / 3, "place_accuracy": 50.0, "colour_accuracy": 0.0,
        "relation_accuracy": 100.0, "repeated_captions": 100 / 3, "broken_captions": 100 / 3, "words": 26 / 3,
    }  # fmt: skip
    assert {name: of(name, *answers) for name in expected} == pytest.approx(expected)
    assert of("place_accuracy", measure_answer("", TRUTH)) is None


def test_without_truth_the_text_is_measured() -> None:
    values = measure_answer("a dog a dog a dog", None)
    assert values == {
        "answers": 1, "answer_words": 6, "repeats": 1, "trigrams": 4, "trigrams_again": 2,
        "bigrams": 5, "bigrams_distinct": 2, "broken": 1,
    }  # fmt: skip
    assert (of("repeated_3grams", values), of("distinct_2", values)) == (50.0, 40.0)


def test_a_plural_without_a_number_names_two() -> None:
    one, three = PictureTruth({"dog": 1}), PictureTruth({"dog": 3})
    assert measure_answer("Dogs.", one)["instances_right"] == 1
    assert measure_answer("Dogs.", one)["kinds_overcounted"] == 1
    assert measure_answer("Dogs.", three)["instances_right"] == 2


def test_presence_alone_gives_no_counts() -> None:
    values = measure_answer("Two dogs and a cat.", PictureTruth.of_objects(["dog"]))
    assert (values["kinds_named"], values["kinds_invented"], values["number_claims"]) == (2, 1, 0)
    assert (values["instances_named"], values["instances_there"], values["kinds_counted"]) == (0, 0, 0)


def test_what_is_known_decides_what_is_measured() -> None:
    def names(truth: list[PictureTruth] | None) -> set[str]:
        return {measure.name for measure in measures_for(truth)}

    text = {"repeated_captions", "repeated_3grams", "distinct_2", "broken_captions", "words"}
    presence = {"distinct_invention", "object_recall", "object_f1"}
    counts = {"instance_precision", "instance_recall", "instance_f1", "overcounted", "number_accuracy"}
    assert names(None) == text
    assert names([PictureTruth.of_objects(["dog"])]) == text | presence
    assert names([PictureTruth({"dog": 1})]) == text | presence | counts
    assert names([PictureTruth({"dog": 1}), TRUTH]) == {measure.name for measure in MEASURES}


def test_every_measure_has_its_values() -> None:
    values = measure_answer(TEXT, TRUTH)
    for measure in MEASURES:
        assert {*measure.numerator, *measure.denominator} <= values.keys(), measure.name
        assert measure.needs in ("text", "presence", "counts", "attributes") and measure.description
    assert len({measure.name for measure in MEASURES}) == len(MEASURES) == 16


def test_the_tail_that_a_mean_hides() -> None:
    before = [{"instances_right": 1.0, "instances_named": 2.0}] * 4
    after = [
        {"instances_right": 2.0, "instances_named": 2.0},
        {"instances_right": 2.0, "instances_named": 2.0},
        {"instances_right": 1.0, "instances_named": 3.0},
        {"instances_right": 0.0, "instances_named": 0.0},
    ]
    assert worse_tail(before, after) == pytest.approx(1 / 3)
    assert worse_tail([], []) is None
    with pytest.raises(ValueError):
        worse_tail(before, after[:1])


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("In a small kitchen you can see a bottle, an apple and two apples.", []),
        ('A man said, "a dog\'s (big) bone".', []),
        ("There is a university, an hour, a European and an MRI.", []),
        ("It is very very big, two two-story buses.", []),
        ("The the dog.", ["doubled word"]),
        ("There is a a dog.", ["doubled word"]),
        ("A dog is on a orange couch.", ["article"]),
        ("An dog.", []),  # a capital may be a name
        ("Here is an dog.", ["article"]),
        ("A dog, , a cat.", ["punctuation"]),
        ("A dog and, a cat.", ["punctuation"]),
        ("A dog and a cat and.", ["dangling"]),
        ("A dog, a cat,", ["dangling", "no end"]),
        ("A dog with a", ["dangling", "no end"]),
        ("A dog", ["no end"]),
        ("", ["no end"]),
        ("A dog (and a cat.", ["unbalanced"]),
        ("A dog) and a cat.", ["unbalanced"]),
        ('A "dog and a cat.', ["unbalanced"]),
        ("“A dog.”", []),
        ("**A dog.**", []),
        ("一只狗。", []),
    ],
)
def test_broken_grammar(text: str, marks: list[str]) -> None:
    assert broken_marks(text) == marks


@pytest.mark.parametrize(
    ("text", "n", "found"), [("a b a b", 2, (1, 3)), ("a b", 3, (0, 0)), ("", 2, (0, 0))]
)
def test_ngrams(text: str, n: int, found: tuple[int, int]) -> None:
    assert ngrams_again(text.split(), n) == found
