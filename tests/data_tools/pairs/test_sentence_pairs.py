"""Pairs of next sentences, caps on pairs, and chosen answers as rows, small enough to check by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from align.rows.schema import PreferenceRow, SFTRow, read_rows
from data_tools.material.pair_cap import PairCap
from data_tools.pairs.stage import run
from tests.data_tools.pairs.test_pairs import candidate, recipe, verdict

CONTEXT = "This is a farm with a dog. "


def pairs_of(tmp_path: Path, *answers: tuple[str, str, str], **fields: Any) -> list[PreferenceRow]:
    """Pairs of answers to one prompt, each a text, the confirmed and the denied objects."""
    rows = [candidate("train-1", number, text, 9) for number, (text, _, _) in enumerate(answers)]
    judged = [(row, verdict(row, yes, no)) for row, (_, yes, no) in zip(rows, answers, strict=True)]
    stage = recipe(tmp_path, judged, strategy="sentence", **fields)
    return list(read_rows(PreferenceRow, run(stage).final / "pairs.parquet"))


def said(row: PreferenceRow) -> tuple[str, str]:
    return row.chosen[0].text, row.rejected[0].text


def test_two_next_sentences_behind_what_both_begin_with(tmp_path: Path) -> None:
    rows = pairs_of(
        tmp_path,
        (CONTEXT + "There is a cow.", "dog cow", ""),
        (CONTEXT + "There is a zebra. A cat sits there.", "dog cat", "zebra"),
        (CONTEXT + "It is noon.", "dog", ""),  # names nothing, so nothing of it is true
    )
    assert [said(row) for row in rows] == [(CONTEXT + "There is a cow.", CONTEXT + "There is a zebra.")]
    (row,) = rows
    for span in (*row.spans.chosen, *row.spans.rejected):
        assert (row.chosen[0].content[: span.end], span.weight) == (CONTEXT.strip(), 0.0)
    assert row.meta["rejected_denied"] == ["zebra"] and row.meta["chosen_confirmed"] == ["cow"]
    assert row.meta["context_sentences"] == 1 and row.id == "sentence1>train-1#0>train-1#1"


def test_nothing_is_a_context_too_and_its_pairs_have_no_spans(tmp_path: Path) -> None:
    rows = pairs_of(tmp_path, ("A dog. A bus.", "dog", "bus"), ("A cat.", "", "cat"))
    assert [said(row) for row in rows] == [("A dog.", "A cat.")], (
        "the bus comes behind a dog of one answer alone"
    )
    assert not rows[0].spans.chosen and not rows[0].spans.rejected


def test_what_follows_an_invention_is_no_context(tmp_path: Path) -> None:
    rows = pairs_of(
        tmp_path,
        ("A cat. A dog.", "dog", "cat"),
        ("A cat. A bus.", "", "cat bus"),
        ("A dog.", "dog", ""),
    )
    assert [said(row) for row in rows] == [("A dog.", "A cat.")]


def test_true_sentences_that_speak_of_the_context_come_first(tmp_path: Path) -> None:
    answers = [
        ("A dog. A cow.", "dog cow", ""),
        ("A dog. The dog and a cat.", "dog cat", ""),
        ("A dog. A bus.", "dog", "bus"),
    ]
    assert [said(row) for row in pairs_of(tmp_path, *answers)] == [
        ("A dog. The dog and a cat.", "A dog. A bus.")
    ]


def test_a_cap_on_one_prompt_and_the_longer_context_first(tmp_path: Path) -> None:
    rows = pairs_of(
        tmp_path,
        ("A dog. A cow.", "dog cow", ""),
        ("A dog. A bus.", "dog", "bus"),
        ("A cat.", "", "cat"),
        max_pairs_per_prompt=1,
    )
    assert [said(row) for row in rows] == [("A dog. A cow.", "A dog. A bus.")]


def test_so_many_pairs_in_all_drawn_by_the_seed_alone(tmp_path: Path) -> None:
    judged = []
    for number in range(1, 9):
        for place, no in enumerate(("", "car")):
            row = candidate(f"train-{number}", place, f"text {place}", 5)
            judged.append((row, verdict(row, "dog", no)))
    (tmp_path / "all").mkdir()
    (tmp_path / "three").mkdir()
    whole = recipe(tmp_path / "all", judged, length_tolerance=None)
    few = recipe(tmp_path / "three", judged, length_tolerance=None, max_pairs=3, write_chosen=True)
    every, drawn = (
        [row.id for row in read_rows(PreferenceRow, run(stage).final / "pairs.parquet")]
        for stage in (whole, few)
    )
    assert len(every) == 8 and len(drawn) == 3 and drawn == [name for name in every if name in drawn]
    metrics = run(few).manifest()["metrics"]
    assert (metrics["pairs"], metrics["pairs_before_cap"]) == (3, 8)
    rows = list(read_rows(SFTRow, few.stage_dir / "chosen.parquet"))
    assert [row.id for row in rows] == [f"chosen>{name}" for name in drawn]
    assert [message.content for message in rows[0].messages] == ["Describe.", "text 0"]
    assert not (whole.stage_dir / "chosen.parquet").exists()


def test_a_larger_cap_keeps_what_a_smaller_one_drew(tmp_path: Path) -> None:
    row = PreferenceRow.model_validate(
        {
            "id": "x",
            "prompt": [{"role": "user", "content": "?"}],
            "chosen": [{"role": "assistant", "content": "a"}],
            "rejected": [{"role": "assistant", "content": "b"}],
        }
    )
    rows = [(f"p{number}", row.model_copy(update={"id": str(number)})) for number in range(20)]
    drawn = [{one.id for _, one in PairCap(most, 0).drawn(rows)} for most in (3, 7, 50)]
    assert drawn[0] < drawn[1] < drawn[2] and [len(ids) for ids in drawn] == [3, 7, 20]
    assert {one.id for _, one in PairCap(7, 1).drawn(rows)} != drawn[1]
