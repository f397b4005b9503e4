"""Pairs whose rejected answer is the chosen one with one phrase altered."""

from __future__ import annotations

import pytest

from align.claims import named_instances, read_text, repeated_categories
from align.rows.schema import Message, PreferenceRow, Span, Spans
from data_tools.pairs.altered import Alteration, altered_rows, repeated_text, shortened_text, swapped_text


def _row(number: int, chosen: str) -> PreferenceRow:
    return PreferenceRow(
        id=f"a#{number}>b",
        images=["1.png"],
        prompt=[Message(role="user", content="Describe the image.")],
        chosen=[Message(role="assistant", content=chosen)],
        rejected=[Message(role="assistant", content="A car.")],
        meta={"image_id": 1, "judge": "j", "chosen_true": 2, "rejected_true": 0},
    )


@pytest.mark.parametrize("name", ["x", "y", "z", "u"])
def test_an_object_is_said_twice_in_place_of_another(name: str) -> None:
    text = "In a kitchen you can see a bottle, two cups and a red apple on the left."
    again = repeated_text(text, 0, name)
    assert again is not None and len(repeated_categories(again)) == 1
    before, after = named_instances(read_text(text)), named_instances(read_text(again))
    assert len(after) == len(before) - 1 and set(after) < set(before)
    assert len(read_text(again)) == len(read_text(text))


def test_a_sentence_keeps_its_capital() -> None:
    found = {repeated_text("A dog and a cat.", seed, "x") for seed in range(12)}
    assert found == {"A dog and a dog.", "A cat and a cat."}


@pytest.mark.parametrize(
    "text", ["A dog.", "The dog and the cat.", "A dog, a dog and a cat.", "Dogs and cats.", ""]
)
def test_nothing_is_made_of_what_has_no_two_objects_or_repeats_already(text: str) -> None:
    assert repeated_text(text, 0, "x") is None


def test_what_the_judge_denies_is_swapped_in_and_may_not_be_named_already() -> None:
    text = "A dog on the left and two cups."
    found = {
        swapped_text(text, ["dog", "cup"], "A red car, a dog and cats.", ["car", "dog", "cat"], seed, "x")
        for seed in range(12)
    }
    assert found == {"A red car and two cups.", "A dog on the left and a red car."}
    assert swapped_text(text, ["cup"], "A car.", ["car"], 0, "x") == "A dog on the left and a car."
    assert swapped_text(text, [], "A car.", ["car"], 0, "x") is None
    assert swapped_text(text, ["cup"], "A dog.", ["dog"], 0, "x") is None


def test_one_object_that_is_confirmed_is_left_out_and_another_stays() -> None:
    found = {
        shortened_text("A dog, a cat and a car.", ["dog", "car"], seed, "x", "strict") for seed in range(12)
    }
    assert found == {"A cat and a car.", "A dog and a cat."}
    assert shortened_text("A dog.", ["dog"], 0, "x", "strict") is None


def test_the_share_of_rows_is_drawn_by_their_ids_and_keeps_what_the_pair_is_about() -> None:
    rows = [_row(number, "A dog and a cat.") for number in range(400)]
    quarter: dict[Alteration, float] = {"repetition": 0.25}
    found = [again for row in rows for again in altered_rows(row, quarter, 0, "strict")]
    assert 70 <= len(found) <= 130
    assert (
        found == [again for row in reversed(rows) for again in altered_rows(row, quarter, 0, "strict")][::-1]
    )
    assert list(altered_rows(rows[0], {}, 0, "strict")) == []
    first = found[0]
    assert first.id.startswith("repetition>a#") and first.chosen[0].content == "A dog and a cat."
    assert first.meta == {"image_id": 1, "judge": "j", "edit": "repetition"}


def test_spans_of_the_row_are_not_those_of_the_altered_text() -> None:
    marked = Spans(rejected=[Span(start=0, end=6, weight=5.0)])
    row = _row(0, "A dog and a cat.").model_copy(update={"spans": marked})
    (made,) = altered_rows(row, {"repetition": 1.0}, 0, "strict")
    assert made.spans == Spans() and row.spans == marked


def test_every_kind_of_one_row() -> None:
    claims = {"chosen_confirmed": ["cat"], "rejected_denied": ["car"]}
    row = _row(0, "A dog and a cat.").model_copy(update={"meta": {"judge": "j", **claims}})
    shares: dict[Alteration, float] = {"repetition": 1.0, "swap": 1.0, "omission": 1.0}
    found = {
        str(made.meta["edit"]): made.rejected[0].content for made in altered_rows(row, shares, 0, "strict")
    }
    assert found.pop("repetition") in ("A dog and a dog.", "A cat and a cat.")
    assert found == {"swap": "A dog and a car.", "omission": "A dog."}
