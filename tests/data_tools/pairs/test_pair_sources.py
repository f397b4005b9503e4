"""Minimal edits, corrections, style balance and negatives, small enough to check by hand."""

from __future__ import annotations

import json
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from align.config.recipe import validate
from align.errors import AlignError, RecipeError
from align.models.loading import ModelSection
from align.objects.plurals import plural
from align.rows.schema import Message, PreferenceRow, SFTRow, read_rows, write_rows
from align.trainers.image_negatives import image_negative
from align.trainers.objectives.recipe import NoisyImage, TokenWeights
from align.trainers.objectives.token_weights import span_weights
from data_tools import corrections
from data_tools.corrections import CorrectionRow, Edit, corrected
from data_tools.material.answer_style import style_of
from data_tools.material.co_occurrence import CoOccurrence
from data_tools.material.edit_spans import changed_share, edit_spans
from data_tools.negatives import stage as negatives
from data_tools.negatives.similar import colour_layout, describe_all, image_features, neighbours
from data_tools.negatives.swaps import swap_objects
from data_tools.pairs.balance import Limits
from data_tools.pairs.minimal_edit import without_objects
from data_tools.pairs.stage import run as build_pairs
from data_tools.pairs.style_balance import balance_style
from tests.data_tools.pairs.test_pairs import candidate, recipe, verdict
from tests.twins import Twins


@pytest.mark.parametrize(
    ("text", "denied", "edited"),
    [
        ("A dog, a cat and a car.", "car", "A dog and a cat."),
        ("A dog, a cat, and a car.", "car", "A dog and a cat."),
        ("A dog, a cat and a car.", "dog", "A cat and a car."),
        ("A dog, a cat, a bus and a car.", "cat", "A dog, a bus and a car."),
        ("There is a cat and a dog. The bus is red.", "cat bus", "There is a dog."),
        ("The image shows a pair of scissors and a cup.", "scissors", "The image shows a cup."),
        ("A dog sits on a couch, with a cat nearby.", "cat", "A dog sits on a couch."),
        ("A cat sits on a dog.", "cat", None),  # would leave half a clause
        ("There are two cats and a dog.", "cat", None),  # `There are a dog`
        ("A dog and a cat are playing.", "cat", None),
        ("A cat.", "cat", None),  # nothing is left
        ("A dog.", "cat", None),  # nothing to take away
    ],
)
def test_denied_objects_go_with_their_commas(text: str, denied: str, edited: str | None) -> None:
    assert without_objects(text, denied.split(), "strict") == edited


def test_spans_mark_the_words_that_differ() -> None:
    chosen, rejected = "A big dog, on a mat.", "A dog on the red mat."
    spans = edit_spans(chosen, rejected, 5.0)
    assert [chosen[s.start : s.end] for s in spans.chosen] == ["big", ",", "a"]
    assert [rejected[s.start : s.end] for s in spans.rejected] == ["the red"]
    assert edit_spans("same", "same", 5.0).chosen == []


def test_minimal_edits_pair_an_answer_with_itself(tmp_path: Path) -> None:
    rows = [
        (candidate("train-1", 0, "A dog, a cat and a car.", 9), "dog cat", "car"),
        (candidate("train-1", 1, "A dog and a cat.", 6), "dog cat", ""),
        (candidate("train-1", 2, "A cat sits on a car.", 6), "cat", "car"),
        (candidate("train-1", 3, "A dog and a car", 5, "length"), "dog", "car"),
        (candidate("train-1", 4, "It is noon. A car drives.", 5), "", "car"),
    ]
    judged = [(row, verdict(row, yes, no)) for row, yes, no in rows]
    stage = recipe(tmp_path, judged, strategy="minimal_edit", span_weight=3.0)
    pairs = list(read_rows(PreferenceRow, build_pairs(stage).final / "pairs.parquet"))
    assert [row.id for row in pairs] == ["edit>train-1#0"]
    assert pairs[0].chosen[0].content == "A dog and a cat."
    assert [(span.start, span.end, span.weight) for span in pairs[0].spans.rejected] == [(19, 22, 3.0)]
    assert pairs[0].meta["margin"] == 1.0 and pairs[0].meta["rejected_denied"] == ["car"]
    dropped = json.loads((stage.stage_dir / "dropped.json").read_text())["train pairs"]["dropped"]
    assert {reason: item["count"] for reason, item in dropped.items()} == {
        "nothing denied": 1,
        "no clean edit": 1,
        "answer is truncated": 1,
        "the edit leaves no object": 1,
    }


def test_a_correction_becomes_a_pair_whose_spans_dense_dpo_reads() -> None:
    row = CorrectionRow(
        id="1",
        prompt=[Message(role="user", content="?")],
        answer="Two cats on a mat.",
        edits=[Edit(start=0, end=8, text="One dog"), Edit(start=17, end=17, text=" outside")],
    )
    pair = corrected(row, 5.0)
    assert pair is not None and pair.chosen[0].content == "One dog on a mat outside."
    assert [(s.start, s.end) for s in pair.spans.chosen] == [(0, 7), (16, 24)]
    assert [(s.start, s.end) for s in pair.spans.rejected] == [(0, 8)]
    # Tokens `Two`, ` cats`, ` on`: the first two were mended; 5 + 5 + 1 = 11.
    spans = [(s.start, s.end, s.weight) for s in pair.spans.rejected]
    assert span_weights([(0, 3), (3, 8), (8, 11)], spans, "paper") == pytest.approx([5 / 11, 5 / 11, 1 / 11])
    assert TokenWeights().gamma == 5.0
    same = row.model_copy(update={"edits": [Edit(start=0, end=3, text="Two")]})
    assert corrected(same, 5.0) is None


def test_corrections_from_edits_and_from_pairs(tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "What?"}]
    good = {"id": "a", "prompt": prompt, "answer": "A cat.", "edits": [{"start": 2, "end": 5, "text": "dog"}]}
    lines = [good, good | {"id": "b", "edits": [{"start": 2, "end": 9, "text": "x"}]}]
    lines += [good | {"id": "c", "edits": [{"start": 0, "end": 6, "text": "Something else."}]}]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    stage = validate(
        corrections.Recipe,
        {"run_dir": tmp_path, "source": {"kind": "edits", "path": tmp_path / "c.jsonl"}},
        "t",
    )
    folder = corrections.run(stage)
    assert [row.id for row in read_rows(PreferenceRow, folder.final / "pairs.parquet")] == ["a"]
    dropped = json.loads((folder.final / "dropped.json").read_text())["corrections"]["dropped"]
    assert {reason: item["count"] for reason, item in dropped.items()} == {
        "schema": 1,
        "another answer, not a correction (more than max_changed)": 1,
    }
    bad = json.loads((folder.final / "quarantine.jsonl").read_text())
    assert (bad["where"], bad["id"], bad["reason"], bad["row"]["id"]) == ("c.jsonl:2", "b", "schema", "b")
    assert "inside the answer" in bad["detail"]
    stage = validate(
        corrections.Recipe,
        {
            "run_dir": tmp_path,
            "name": "again",
            "source": {"kind": "pairs", "path": folder.final / "pairs.parquet"},
            "weight": 2.0,
        },
        "t",
    )
    row = next(iter(read_rows(PreferenceRow, corrections.run(stage).final / "pairs.parquet")))
    assert [(s.start, s.end, s.weight) for s in row.spans.chosen] == [(2, 5, 2.0)]
    with pytest.raises(RecipeError, match=r"'corrections' is no key any more: it is now source:"):
        validate(corrections.Recipe, {"run_dir": tmp_path, "corrections": "c.jsonl"}, "t")


def styles(texts: list[tuple[str, str]]) -> NDArray[np.float64]:
    return np.array([(style_of(chosen), style_of(rejected)) for chosen, rejected in texts])


def gaps(*values: int) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)[:, None]


def test_style_is_balanced_by_taking_away_what_pulls_hardest() -> None:
    assert style_of("- It may rain.\n- It seems so, perhaps.") == (4.5, 1 / 9, 2.0, 3 / 9)
    # Of four pairs one has a comma on the chosen side: commas differ by 1/4 of 1/3, until it goes.
    texts = [("a b c", "a b c")] * 3 + [("a, b c", "a b c")]
    found = balance_style(styles(texts), gaps(0, 0, 0, 0), 0.1, Limits((None,), (False,)), max_taken=2)
    assert (found.kept.tolist(), found.taken.tolist()) == ([0, 1, 2], [3])
    # The answers' commas a word: seven times 0, once 1/3, so one deviation is sqrt(7)/8 * 1/3.
    assert (
        found.before["commas"] == pytest.approx(0.25 / (7**0.5 / 8), abs=1e-4) and found.after["commas"] == 0
    )
    none = balance_style(styles(texts), gaps(0, 0, 0, 0), 0.1, Limits((None,), (False,)), max_taken=0)
    assert none.taken.tolist() == []


def test_style_balance_keeps_the_balance_of_length() -> None:
    """Two pairs with a comma too many: the one whose going would tip the length stays."""
    texts = [("a, b", "a b"), ("a, b", "a b"), ("a b", "a, b"), ("a b", "a b")]
    found = balance_style(styles(texts), gaps(6, 0, 0, -6), 0.1, Limits((0.5,), (False,)), max_taken=2)
    assert found.taken.tolist() == [1]


def test_style_balance_of_many_pairs_goes_in_lots_and_stops_at_the_goal() -> None:
    """40,000 pairs of which 60% have a comma more: a step a pair takes half a minute."""
    stream = np.random.default_rng(0)
    more = stream.random(40_000) < 0.6
    features = np.zeros((40_000, 2, 4))
    features[:, 0, 1], features[:, 1, 1] = more, ~more
    started = time.monotonic()
    found = balance_style(features, np.zeros((40_000, 1)), 0.1, Limits((None,), (False,)), max_taken=20_000)
    assert time.monotonic() - started < 10
    assert found.before["commas"] == pytest.approx(2 * (2 * more.mean() - 1), abs=1e-4)
    assert found.after["commas"] == pytest.approx(0.1, abs=2e-3)  # and not below: pairs are dear
    assert more[found.taken].all() and len(found.kept) + len(found.taken) == 40_000


@pytest.mark.parametrize(
    ("chosen", "rejected", "marked"),
    [
        ("桌上有一只黑色的猫，它在睡觉。", "桌上有一只黑色的狗，它在睡觉。", ("猫", "狗")),
        ("机の上に猫がいます", "机の上に犬がいます", ("猫", "犬")),
        ("รูปนี้มีแมวสองตัว", "รูปนี้มีแมวสามตัว", ("อ", "าม")),
        ("एक काली बिल्ली बैठी है", "एक काली कुर्सी बैठी है", ("बिल्ली", "कुर्सी")),
        ("A cat on a mat.", "A dog on a mat.", ("cat", "dog")),
    ],
)
def test_an_edit_is_marked_where_it_is_in_any_script(
    chosen: str, rejected: str, marked: tuple[str, str]
) -> None:
    spans = edit_spans(chosen, rejected, 5.0)
    texts = [
        "".join(text[span.start : span.end] for span in side)
        for text, side in ((chosen, spans.chosen), (rejected, spans.rejected))
    ]
    assert all(piece in text for piece, text in zip(marked, texts, strict=True))
    assert changed_share(chosen, spans.chosen) < 0.3


def test_what_comes_together_by_hand() -> None:
    table = CoOccurrence.of({1: {"dog", "cat", "couch"}, 2: {"dog", "couch"}, 3: {"fork", "knife"}})
    assert table.expected({"couch"}, "cat") == 0.5 and table.expected({"couch", "fork"}, "cat") == 0.25
    assert table.likeliest({"dog"}, 5) == ["couch", "cat"]
    assert [plural(name) for name in ("dog", "bus", "person", "wine glass", "skis")] == [
        "dogs",
        "buses",
        "people",
        "wine glasses",
        "skis",
    ]


def test_a_swap_takes_every_mention_with_its_article_and_number() -> None:
    table = CoOccurrence.of({1: {"dog", "apple"}, 2: {"couch", "apple"}})
    text = "Two dogs. A dog and another dog."
    found = swap_objects(text, {"dog"}, table, 1, 1, 5.0, Random(0), "strict")
    assert found is not None and found.swaps == {"dog": "apple"}
    assert found.text == "Two apples. An apple and another apple."
    assert [found.text[s.start : s.end] for s in found.new] == ["apples", "An apple", "apple"]
    assert [text[s.start : s.end] for s in found.old] == ["dogs", "A dog", "dog"]
    assert swap_objects("A bus.", {"dog"}, table, 1, 1, 5.0, Random(0), "strict") is None


def picture(path: Path, colour: tuple[int, int, int], seed: int) -> None:
    """A colour with its own pattern: pictures of one colour have near layouts and different hashes."""
    noise = np.random.default_rng(seed).integers(-40, 40, (8, 8, 1))
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC).save(path)


def pairs_file(tmp_path: Path, names: list[str]) -> Path:
    rows = [
        PreferenceRow(
            id=name,
            images=[name],
            prompt=[Message(role="user", content="?")],
            chosen=[Message(role="assistant", content="yes")],
            rejected=[Message(role="assistant", content="no")],
        )
        for name in names
    ]
    write_rows(tmp_path / "pairs.jsonl", rows)
    return tmp_path / "pairs.jsonl"


def negative_rows(tmp_path: Path, kind: str, **fields: Any) -> tuple[list[PreferenceRow], Path]:
    values = {"run_dir": tmp_path / "run", "image_root": tmp_path, "negatives": {"kind": kind, **fields}}
    folder = negatives.run(validate(negatives.Recipe, values, "t"))
    return list(read_rows(PreferenceRow, folder.final / "pairs.parquet")), folder.final


def test_made_pictures_are_those_of_training(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (200, 30, 30), 1)
    rows, folder = negative_rows(tmp_path, "noisy", pairs=pairs_file(tmp_path, ["a.png"]), step=300)
    (worse,) = rows[0].rejected_images
    conditional = NoisyImage(image="noisy", step=300)
    expected = image_negative(conditional, Image.open(tmp_path / "a.png"), 0, "a.png", 0)
    assert np.array_equal(np.asarray(Image.open(folder / "images" / worse)), np.asarray(expected))
    assert (folder / "images" / "a.png").read_bytes() == (tmp_path / "a.png").read_bytes()


def test_the_retrieved_picture_is_alike_but_not_the_same(tmp_path: Path) -> None:
    for name, colour, seed in (
        ("red", (200, 30, 30), 1),
        ("rose", (190, 50, 50), 2),
        ("blue", (20, 30, 200), 3),
    ):
        picture(tmp_path / f"{name}.png", colour, seed)
    Image.open(tmp_path / "red.png").save(tmp_path / "red.jpg", quality=60)  # the same picture again
    names = ["red.png", "rose.png", "blue.png", "red.jpg"]
    rows, _ = negative_rows(tmp_path, "retrieved", pairs=pairs_file(tmp_path, names))
    found = {row.id: row.rejected_images[0] for row in rows}
    assert found["red.png"] == found["red.jpg"] == "rose.png" and found["rose.png"].startswith("red.")
    features = np.stack([colour_layout(Image.open(tmp_path / name)) for name in names])
    assert neighbours(features, np.array([0]), 5).tolist() == [[3, 1, 2, -1, -1]]


def test_what_was_chosen_for_the_retrieved_picture_is_rejected(tmp_path: Path) -> None:
    names = ["red.png", "rose.png", "blue.png"]
    for seed, (name, colour) in enumerate(
        zip(names, ((200, 30, 30), (190, 50, 50), (20, 30, 200)), strict=True)
    ):
        picture(tmp_path / name, colour, seed)
    chosen = {"red.png": "A red dog.", "rose.png": "A rose.", "blue.png": "A rose."}
    rows = [
        row.model_copy(update={"chosen": [Message(role="assistant", content=chosen[row.id])]})
        for row in read_rows(PreferenceRow, pairs_file(tmp_path, names))
    ]
    write_rows(tmp_path / "own.jsonl", rows)
    found, folder = negative_rows(tmp_path, "retrieved", pairs=tmp_path / "own.jsonl", rejected="retrieved")
    assert {row.id: (row.rejected[0].content, row.rejected_images) for row in found} == {
        "red.png": ("A rose.", ["rose.png"]),
        "rose.png": ("A red dog.", ["red.png"]),
    }
    dropped = json.loads((folder / "dropped.json").read_text())["pairs"]
    assert dropped["kept"] == 2 and list(dropped["dropped"]) == ["the retrieved picture has the same answer"]
    with pytest.raises(RecipeError, match=r"unknown key 'negatives\.rejected'"):
        negative_rows(tmp_path, "noisy", pairs=tmp_path / "own.jsonl", rejected="retrieved")


@pytest.mark.parametrize("name", ["base", "qwen2_vl"])
def test_a_checkpoint_describes_pictures(
    name: str, base_checkpoint: Path, twins: Twins, tmp_path: Path
) -> None:
    section = ModelSection(path=str(base_checkpoint if name == "base" else twins(name)), dtype="float32")
    for seed, colour in enumerate(((200, 30, 30), (20, 30, 200))):
        picture(tmp_path / f"{seed}.png", colour, seed)
    features = describe_all([tmp_path / f"{n}.png" for n in (0, 1, 0)], image_features(section))
    assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    assert np.array_equal(features[0], features[2]) and not np.allclose(features[0], features[1], atol=1e-4)


def test_an_only_picture_has_no_neighbour(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (200, 30, 30), 1)
    with pytest.raises(AlignError, match="no pairs left"):
        negative_rows(tmp_path, "retrieved", pairs=pairs_file(tmp_path, ["a.png"]))


def test_swaps_only_of_what_is_true_and_annotated(tmp_path: Path) -> None:
    truth = {
        "images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}],
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
        "annotations": [
            {"image_id": 1, "category_id": 18},
            {"image_id": 2, "category_id": 18},
            {"image_id": 2, "category_id": 17},
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(truth))

    def row(row_id: str, image_id: int, text: str, turns: int = 1) -> SFTRow:
        turn = [Message(role="user", content="?"), Message(role="assistant", content=text)]
        return SFTRow(id=row_id, images=["1.png"], messages=turn * turns, meta={"image_id": image_id})

    rows = [row("a", 1, "A dog."), row("b", 1, "A cat."), row("c", 7, "A dog."), row("d", 1, "A dog.", 2)]
    write_rows(tmp_path / "rows.jsonl", [*rows, row("e", 1, "Grass.")])
    found, folder = negative_rows(
        tmp_path, "swap", rows=tmp_path / "rows.jsonl", truth=[{"instances": tmp_path / "instances.json"}]
    )
    assert [(row.id, row.rejected[0].content) for row in found] == [("swap>a", "A cat.")]
    assert found[0].meta["swaps"] == {"dog": "cat"} and found[0].spans.rejected[0].weight == 5.0
    dropped = json.loads((folder / "dropped.json").read_text())["pairs"]["dropped"]
    assert sorted(item["examples"][0] for item in dropped.values()) == ["b", "c", "d", "e"]
