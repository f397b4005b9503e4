"""Pairs whose rejected answer is the chosen one with an object said again."""

from __future__ import annotations

import pytest

from align.claims import named_instances, read_text, repeated_categories
from align.schema import Message, PreferenceRow
from data_tools.repetition_pairs import repeated_text, repetition_rows


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


def test_the_share_of_rows_is_drawn_by_their_ids_and_keeps_what_the_pair_is_about() -> None:
    rows = [_row(number, "A dog and a cat.") for number in range(400)]
    found = [again for row in rows for again in repetition_rows(row, 0.25, seed=0)]
    assert 70 <= len(found) <= 130
    assert found == [again for row in reversed(rows) for again in repetition_rows(row, 0.25, seed=0)][::-1]
    assert list(repetition_rows(rows[0], 0.0, seed=0)) == []
    first = found[0]
    assert first.id.startswith("repetition>a#") and first.chosen[0].content == "A dog and a cat."
    assert first.meta == {"image_id": 1, "judge": "j", "edit": "repetition"}
