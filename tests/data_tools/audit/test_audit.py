"""Each check of the audit on pairs whose fault is known, and the page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

from align.cli import main
from align.config.recipe import validate
from align.inputs.chat import render
from align.models.loading import ModelSection, load_model, load_processor
from align.rows.schema import Message, PreferenceRow, read_rows, write_rows
from data_tools.audit.count_checks import CountChecks
from data_tools.audit.duplicates import Duplicate, DuplicateCheck
from data_tools.audit.findings import Finding, interval, share_interval
from data_tools.audit.histogram import histogram
from data_tools.audit.judge_check import check_judge
from data_tools.audit.label_noise import NoiseCheck, expected_order
from data_tools.audit.length_check import LengthCheck, PrefixCheck
from data_tools.audit.page import headline
from data_tools.audit.reference_check import Scored, check_blind, check_reach, score_pairs
from data_tools.audit.stage import Recipe, run
from data_tools.audit.style_check import LayoutCheck, StyleCheck

Check = TypeVar("Check", bound=Any)


def pair(number: int, chosen: str, rejected: str, **meta: Any) -> PreferenceRow:
    return PreferenceRow(
        id=f"p{number}",
        images=[f"{number}.png"],
        prompt=[Message(role="user", content="Describe.")],
        chosen=[Message(role="assistant", content=chosen)],
        rejected=[Message(role="assistant", content=rejected)],
        meta=meta,
    )


def fed(check: Check, rows: Iterable[PreferenceRow]) -> Check:
    for row in rows:
        check.add(row)
    return check


def check_length(rows: list[PreferenceRow]) -> Finding:
    return fed(LengthCheck(), rows).finding(seed=0)


def test_length_by_hand() -> None:
    # Words: 2-4, 3-3, 1-4: gaps -2, 0, -3. Longer wins in none but the tie's half.
    rows = [pair(1, "a b", "a b c d"), pair(2, "a b c", "c b a"), pair(3, "a", "a b c d")]
    found = check_length(rows)
    assert list(found.values) == [-2, 0, -3]
    assert found.numbers["gap"]["value"] == pytest.approx(-5 / 3, abs=1e-4)
    assert found.numbers["longer_wins"] == pytest.approx(0.5 / 3, abs=1e-4)
    spread = math.sqrt(sum((n - 17 / 6) ** 2 for n in (2, 4, 3, 3, 1, 4)) / 6)
    assert found.numbers["standard_deviations"] == pytest.approx(5 / 3 / spread, abs=1e-4)
    assert found.state == "bad" and "shorter" in found.advice and found.rows[0] == "p3"
    told = pair(1, "a b", "a b c d", chosen_tokens=7, rejected_tokens=7)
    assert check_length([told]).state == "good"


CAPTION = "桌上有一只黑色的猫它在睡觉旁边有一个红色的杯子"


@pytest.mark.parametrize(
    ("chosen", "rejected", "states", "wins"),
    [
        # Two words more among thirty or so, in every pair: half a deviation is far off.
        (lambda n: "word " * (20 + n % 40) + "and more", lambda n: "word " * (20 + n % 40), ("bad",), 1.0),
        (lambda n: "word " * (20 + n % 40), lambda n: "word " * (20 + n % 40) + "and more", ("bad",), 0.0),
        (lambda n: "字" * (20 + n % 40) + "猫狗", lambda n: "字" * (20 + n % 40), ("bad",), 1.0),
        (lambda n: CAPTION[: 5 + n % 9], lambda n: CAPTION * 2, ("bad",), 0.0),
        (lambda n: "ねこがいる" + "よ" * (n % 5), lambda n: "ねこがいる" * 4, ("bad",), 0.0),
        (lambda n: "แมวนั่ง", lambda n: "แมวนั่งอยู่บนโต๊ะ", ("bad",), 0.0),
        (lambda n: "고양이", lambda n: "고양이 한 마리", ("bad",), 0.0),
        # Longer in three of five pairs, as much shorter in the others: a mean of almost nothing.
        (lambda n: "a " * (9 + (n % 5 < 3)), lambda n: "a " * (9 + (n % 5 >= 3)), ("look", "bad"), 0.6),
        # Longer in as many as shorter.
        (lambda n: "a " * (9 + n % 2), lambda n: "a " * (10 - n % 2), ("good",), 0.5),
    ],
)
def test_a_gap_counts_in_any_script_and_when_it_is_small_but_constant(
    chosen: Any, rejected: Any, states: tuple[str, ...], wins: float
) -> None:
    rows = [pair(n, chosen(n), rejected(n)) for n in range(400)]
    found = check_length(rows)
    assert found.state in states and found.numbers["longer_wins"] == pytest.approx(wins, abs=0.01)
    found = fed(LengthCheck(), [pair(1, "猫", "猫狗"), pair(2, "狗", "猫")]).finding(0)
    assert found.numbers["unit"] == "words" and found.numbers["gap"]["value"] == -0.5


def test_a_few_pairs_are_no_evidence_and_many_are() -> None:
    # Wilson's interval of 3 of 3: from 9 / (9 + 3 * 1.96^2 / 3) = 3 / (3 + 3.8416).
    assert share_interval(1.0, 3)["ci_low"] == pytest.approx(3 / 6.8416, abs=1e-4)
    assert share_interval(0.5, 100)["ci_low"] == pytest.approx(0.4038, abs=1e-4)


@pytest.mark.parametrize(
    ("alter", "feature"),
    [
        (lambda text: "- " + text, "list_lines"),
        (lambda text: text.replace("，", ""), "commas"),
        (lambda text: "**" + text[:2] + "**" + text[2:], "markup"),
        (lambda text: text + "\n\n" + text[:3], "line_breaks"),
        (lambda text: text.rstrip("。"), "ends_in_a_stop"),
        (lambda text: "也许" + text, "hedges"),
        (lambda text: text.replace("。", "！。好。"), "sentences"),
    ],
)
def test_layout_that_tells_chosen_is_said_in_any_script(alter: Any, feature: str) -> None:
    plain = [f"桌上有{n % 9}只猫，它们在睡觉{CAPTION[: n % 7]}。" for n in range(100)]
    found = fed(LayoutCheck(), [pair(n, alter(text), text) for n, text in enumerate(plain)]).finding(0)
    assert found.state == "bad" and feature.replace("_", " ") in found.said and found.advice
    same = [pair(n, text, plain[n ^ 1]) for n, text in enumerate(plain)]  # each once on either side
    assert fed(LayoutCheck(), same).finding(0).state == "good"


def test_words_of_a_script_without_spaces_tell_too() -> None:
    rows = [pair(n, f"桌上有{n}只猫确实", f"桌上有{n}只猫大概") for n in range(60)]
    found = fed(StyleCheck(1000, 0), rows).finding()
    assert found.state == "bad" and found.numbers["words"]["chosen_words"][0] in "确实"
    drawn = fed(StyleCheck(50, 0), rows).finding()
    assert "on 50 of 60 pairs" in drawn.said and drawn.state == "bad"


def test_what_cannot_be_read_is_not_called_fine() -> None:
    found = by_key([pair(n, "桌上有一只猫", "桌上有两只狗") for n in range(9)])
    assert {item.state for item in found.values()} == {"unknown"}
    assert "100% of the answers are in other scripts" in found["mentions"].said
    assert by_key([pair(1, "It is so.", "It is not.")])["mentions"].state == "unknown"


@pytest.mark.parametrize(
    ("states", "line"),
    [
        (["good"], "Nothing speaks against training"),
        (["good", "unknown"], "Nothing found in what was measured; 1 check not measured"),
        (["look", "unknown", "unknown"], "1 worth a look, 2 checks not measured"),
        (["bad", "look"], "1 to mend before training, 1 worth a look"),
    ],
)
def test_the_headline_says_no_more_than_was_measured(states: list[Any], line: str) -> None:
    assert headline([Finding("k", "T", state, "") for state in states]) == line


def by_key(rows: list[PreferenceRow]) -> dict[str, Finding]:
    return {found.key: found for found in fed(CountChecks(), rows).findings(seed=0)}


def test_mentions_and_number_words_by_hand() -> None:
    # Mentions 2-3, 1-1, 1-2; number words 0-1, 1-0, 0-0.
    rows = [
        pair(1, "A dog and a cat.", "A dog, a cat and two cups."),
        pair(2, "Three dogs.", "A dog."),
        pair(3, "A bus here.", "A bus and a car."),
    ]
    found = by_key(rows)
    mentions, numbers = found["mentions"], found["number_words"]
    assert list(mentions.values) == [-1, 0, -1] and mentions.numbers["gap"]["value"] == pytest.approx(
        -2 / 3, abs=1e-4
    )
    assert mentions.numbers["more_wins"] == pytest.approx(0.5 / 3, abs=1e-4)
    spread = math.sqrt(sum((n - 10 / 6) ** 2 for n in (2, 3, 1, 1, 1, 2)) / 6)
    assert mentions.numbers["standard_deviations"] == pytest.approx(2 / 3 / spread, abs=1e-4)
    assert mentions.state == "bad" and "fewer: balance them (pairs.mention_tolerance)" in mentions.advice
    assert "1.33 in chosen and 2.00 in rejected" in mentions.said and "right in 17%" in mentions.said
    assert list(numbers.values) == [-1, 1, 0] and numbers.state == "good" and numbers.advice == ""


@pytest.mark.parametrize(
    ("more", "less", "both", "state", "said"),
    [
        (12, 2, 0, "bad", "more often than rejected in 12% of the pairs, less often in 2%"),
        (5, 5, 0, "look", "more often than rejected in 5% of the pairs, less often in 5%"),
        (0, 0, 30, "look", "0% of the pairs, less often in 0%; 30% of the answers name an object again"),
        (0, 20, 0, "good", "less often in 20%; 10% of the answers"),
        (1, 0, 0, "good", "in 1% of the pairs"),
        (0, 90, 0, "look", "less often in 90%"),
    ],
)
def test_repetition_is_pushed_back_or_it_grows(
    more: int, less: int, both: int, state: str, said: str
) -> None:
    """Of 100 pairs so many whose chosen answer repeats more, whose rejected one does, and whose both do."""
    plain, again = "A dog and a cat.", "A dog, a dog and a cat."
    texts = [(again, plain)] * more + [(plain, again)] * less + [(again, again + " Yes.")] * both
    texts += [(plain, plain + " Yes.")] * (100 - len(texts))
    found = by_key([pair(n, *both_sides) for n, both_sides in enumerate(texts)])["repetition"]
    assert (found.state, bool(found.advice)) == (state, state != "good")
    assert said in found.said
    assert found.rows == [f"p{n}" for n in range(min(more, 12))]
    assert (found.numbers["chosen_more"], found.numbers["chosen_less"]) == (more / 100, less / 100)


def test_shared_beginnings_by_hand() -> None:
    rows = [pair(1, "A dog sits.", "a dog runs far"), pair(2, "A dog!", "a dog.")]
    found = fed(PrefixCheck(), rows).finding()  # 2 of 4 words, and all of 2
    assert (found.numbers["mean_words"], found.numbers["mean_share"]) == (2.0, 0.75)
    assert found.rows == ["p2"] and found.state == "look"


def duplicates(rows: list[PreferenceRow], root: Path | None = None) -> tuple[Finding, list[Duplicate]]:
    check = fed(DuplicateCheck(root), rows)
    return check.finding(check.found()), check.found()


def test_repeats_and_cycles() -> None:
    def about_one(number: int, chosen: str, rejected: str) -> PreferenceRow:
        return pair(number, chosen, rejected).model_copy(update={"images": ["same.png"]})

    rows = [about_one(1, "a", "b"), about_one(2, "b", "c"), about_one(3, "c", "a"), about_one(4, "a", "d")]
    rows += [about_one(5, "a", "d"), pair(6, "b", "a")]  # another picture: no contradiction
    found, listed = duplicates(rows)
    assert found.numbers["contradicting"] == 3 and found.numbers["repeated"] == 1
    assert found.rows == ["p1", "p2", "p3", "p5"] and found.state == "bad"
    assert found.numbers["most_pairs_of_a_picture"] == 5
    assert [(item.id, item.kind, item.of) for item in listed] == [
        ("p1", "contradiction", ""),
        ("p2", "contradiction", ""),
        ("p3", "contradiction", ""),
        ("p5", "exact", "p4"),
    ]
    assert duplicates(rows[3:4])[0].state == "good"


LONG = (
    "A black cat sleeps on a wooden table beside a red cup and an open book near the old window "
    "in the light of a warm summer day"
)


def test_near_duplicates_are_listed_whole(tmp_path: Path) -> None:
    def about(number: int, chosen: str, rejected: str, image: str = "same.png", **meta: Any) -> PreferenceRow:
        return pair(number, chosen, rejected, **meta).model_copy(update={"images": [image]})

    other = "Two dogs run over a wide green field under a cloudy sky with a house far behind them "
    other += "on the first day of a new year in a quiet land"
    rows = [about(n, f"{LONG} {n}", f"{other} {n}") for n in range(0, 3)]  # the last word alone differs
    rows += [about(10, LONG.upper() + " 0!", f"{other}, 0")]  # case and punctuation
    rows += [about(11, f"{other} 0", f"{LONG} 0")]  # the other way round
    rows += [about(12, f"{LONG} 0", f"{other} 0", "another.png")]
    rows += [about(13, f"{LONG} 0", "A car.")]
    _, listed = duplicates(rows)
    assert [(item.id, item.kind, item.of) for item in listed] == [
        ("p0", "contradiction", ""),
        ("p1", "near", "p0"),
        ("p2", "near", "p0"),
        ("p10", "near", "p0"),
        ("p11", "contradiction", ""),
    ]
    # One shingle differs of each text; p10 has the same words.
    assert [item.similarity for item in listed if item.kind == "near"][2] == 1.0
    for name, colour in (("a.png", 10), ("b.png", 10), ("c.png", 20)):
        Image.new("RGB", (8, 8), (colour, 0, 0)).save(tmp_path / name)
    files = [about(n, LONG, other, name) for n, name in enumerate(("a.png", "b.png", "c.png"))]
    assert [item.id for item in duplicates(files, tmp_path)[1]] == ["p1"]  # the same bytes under two names
    assert duplicates(files)[1] == []


def test_near_duplicates_by_minhash_are_those_of_all_comparisons() -> None:
    stream = np.random.default_rng(0)
    words = [f"w{n}" for n in range(500)]
    rows: list[PreferenceRow] = []
    for number in range(200):
        text = [words[n] for n in stream.integers(0, 500, 60)]
        rows.append(pair(2 * number, " ".join(text), "no"))
        text[int(stream.integers(0, 60))] = "other"
        rows.append(pair(2 * number + 1, " ".join(text), "no"))
    rows = [row.model_copy(update={"images": ["a.png"]}) for row in rows]
    _, listed = duplicates(rows)
    assert all(int(item.id[1:]) == int(item.of[1:]) + 1 for item in listed)
    # One word of sixty: three of 58 shingles at most, so a similarity of at least 55 / 61 = 0.902.
    assert len(listed) >= 190


def test_listed_pairs_are_dropped_by_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [pair(1, "a cat", "a dog"), pair(1, "a cat", "a dog"), pair(2, "a bus", "a car")]
    rows += [pair(3, "a car", "a bus").model_copy(update={"images": ["2.png"]})]
    write_rows(tmp_path / "pairs.parquet", rows)
    assert main(["audit", str(tmp_path / "pairs.parquet"), "--run_dir", str(tmp_path / "r")]) == 0
    listed = tmp_path / "r" / "audit" / "duplicates.jsonl"
    assert [json.loads(line)["kind"] for line in listed.read_text().splitlines()] == [
        "exact",
        "contradiction",
        "contradiction",
    ]

    def kept(*words: str) -> list[str]:
        out = tmp_path / "out.jsonl"
        assert main(["drop", str(tmp_path / "pairs.parquet"), str(out), "--ids", *words]) == 0
        return [row.id for row in read_rows(PreferenceRow, out)]

    assert kept(str(listed)) == ["p1"]  # the first of two rows of one id stays
    assert kept(str(listed), "--kinds", "exact") == ["p1", "p2", "p3"]
    (tmp_path / "mine.txt").write_text("p2\nnone\n")
    capsys.readouterr()
    assert kept(str(tmp_path / "mine.txt")) == ["p1", "p1", "p3"]
    assert "1 listed ids are in no row" in capsys.readouterr().out
    (tmp_path / "bad.jsonl").write_text('{"name": 1}\n')
    assert (
        main(
            [
                "drop",
                str(tmp_path / "pairs.parquet"),
                str(tmp_path / "o"),
                "--ids",
                str(tmp_path / "bad.jsonl"),
            ]
        )
        == 1
    )


def test_an_unsound_row_is_put_aside_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "pairs.jsonl", [pair(1, "a cat", "a dog")])
    with (tmp_path / "pairs.jsonl").open("a") as lines:
        lines.write("{not JSON\n")
    assert main(["audit", str(tmp_path / "pairs.jsonl"), "--run_dir", str(tmp_path / "r")]) == 0
    folder = tmp_path / "r" / "audit"
    assert "not JSON" in (folder / "quarantine.jsonl").read_text()
    assert "1 rows unread" in (folder / "audit.html").read_text()
    assert json.loads((folder / "audit.json").read_text())["unread"] == 1


def test_a_classifier_without_eyes_finds_the_telling_word_and_nothing_in_objects() -> None:
    nouns = ["dog", "cat", "bus", "car", "cup", "fork"]
    told = [pair(n, f"A {nouns[n % 6]}, surely.", f"A {nouns[n % 5]}, perhaps.") for n in range(60)]
    found = fed(StyleCheck(1000, 0), told).finding()
    assert found.state == "bad" and found.numbers["without_objects"]["auc"] > 0.99
    assert found.numbers["without_objects"]["chosen_words"][0] == "surely"
    assert found.numbers["without_objects"]["rejected_words"][0] == "perhaps"
    by_object = [pair(n, "There is a dog.", "There is a cat.") for n in range(60)]
    found = fed(StyleCheck(1000, 0), by_object).finding()
    assert found.numbers["words"]["auc"] > 0.99 and found.numbers["without_objects"]["auc"] == 0.5
    assert found.state == "good" and fed(StyleCheck(1000, 0), told[:20]).finding().state == "unknown"


def test_expected_order_of_independent_claims() -> None:
    """Chosen has one confirmed claim (invented with 0.1), rejected one denied (0.8); `dog` is in both."""
    meta = {
        "chosen_confirmed": ["dog", "cat"],
        "chosen_denied": [],
        "rejected_confirmed": ["dog"],
        "rejected_denied": ["car"],
    }
    more, equal, fewer = expected_order(meta, 0.1, 0.8)
    assert (more, equal, fewer) == pytest.approx((0.1 * 0.2, 0.1 * 0.8 + 0.9 * 0.2, 0.9 * 0.8))
    two = expected_order(meta | {"rejected_denied": ["car", "bus"]}, 0.1, 0.8)
    assert two[0] == pytest.approx(0.1 * 0.2**2)


def test_label_noise_is_counted_or_estimated() -> None:
    truth = {1: {"dog"}}
    rows = [
        pair(1, "A dog.", "A dog and a cat.", image_id=1),
        pair(2, "A dog and a cat.", "A dog.", image_id=1),
        pair(3, "A dog.", "A dog", image_id=1),
    ]
    found = fed(NoiseCheck(truth, None, "strict"), rows).finding(0)
    assert found.state == "bad" and found.rows == ["p2"]
    assert {key: found.numbers[key] for key in ("right", "tied", "wrong")} == {
        "right": 1,
        "tied": 1,
        "wrong": 1,
    }
    judge = {
        "kind": "claims",
        "confusion": {"true_kept": 9, "invented_kept": 1, "true_denied": 2, "invented_caught": 8},
    }
    claims = {
        "chosen_confirmed": ["cat"],
        "chosen_denied": [],
        "rejected_confirmed": [],
        "rejected_denied": ["car"],
    }
    found = fed(NoiseCheck({}, judge, "strict"), [pair(1, "a", "b", **claims)]).finding(0)
    # P(invented | confirmed) = 1/10, P(invented | denied) = 8/10: wrong 0.02, right 0.72.
    assert found.numbers["share"] == pytest.approx(0.02 / 0.74, abs=1e-4) and found.numbers["estimated"]
    assert fed(NoiseCheck({}, None, "strict"), rows).finding(0).state == "unknown"


def test_the_judge_is_called_bad_at_chance() -> None:
    measured = {"balanced_accuracy": {"value": 0.55, "ci_low": 0.48, "ci_high": 0.62}}
    assert check_judge(measured).state == "bad" and check_judge(None).state == "unknown"
    good = {"balanced_accuracy": {"value": 0.9, "ci_low": 0.85, "ci_high": 0.95}}
    assert check_judge(good).state == "good"
    assert "not trusted with number" in check_judge(good | {"left_out": {"number": "why"}}).said
    assert check_judge(good | {"order_bias": {"inconsistent": 0.5}}).state == "look"


def test_blindness_and_reach_by_hand() -> None:
    same = [Scored(f"p{n}", (-4.0, -6.0), (-4.1, -6.0), (2, 3)) for n in range(4)]
    found = check_blind(same, seed=0)
    assert found.state == "bad" and found.numbers["moved"]["value"] == 0.1
    assert check_reach(same, seed=0).numbers["gap_a_token"]["value"] == 0.0  # -2 a token each
    seeing = [Scored(f"p{n}", (-4.0, -9.0), (-8.0, -6.0), (2, 2)) for n in range(4)]
    assert check_blind(seeing, seed=0).state == "good"
    far = check_reach([Scored("p", (-9.0, -2.0), (-9.0, -2.0), (3, 2))], seed=0)
    assert far.numbers["gap_a_token"]["value"] == 2.0 and far.state == "bad"


def test_the_reference_scores_what_its_forward_says(base_checkpoint: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "1.png")
    row = pair(1, "A dog.", "A cat and a dog.")
    section = ModelSection(path=str(base_checkpoint), dtype="float32")
    (scored,) = score_pairs(section, [row], tmp_path)
    import torch

    processor: Any = load_processor(section)
    model: Any = load_model(section)
    text = render(processor, [*row.prompt, *row.chosen], 1, add_generation_prompt=False)
    image = Image.open(tmp_path / "1.png")
    inputs = processor(text=[text], images=[image], return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        logps = model(**inputs).logits[0].log_softmax(-1)
    ids = inputs["input_ids"][0].tolist()
    start = len(ids) - scored.tokens[0]
    by_hand = sum(float(logps[place - 1, ids[place]]) for place in range(start, len(ids)))
    assert scored.seen[0] == pytest.approx(by_hand, abs=1e-4)
    assert processor.tokenizer.decode(ids[start:]).startswith(("A dog", " A dog"))
    assert scored.seen != scored.blind and scored.tokens[1] > scored.tokens[0]


def test_intervals_and_histograms() -> None:
    assert interval([1.0, 1.0], 0) == {"value": 1.0, "ci_low": 1.0, "ci_high": 1.0, "n": 2}
    svg = histogram([-1.0, 0.5, 0.5, 2.0], "words <b>")
    assert svg.count("<rect") == 28 and 'class="zero"' in svg and "<b>" not in svg and "style=" not in svg
    whole = histogram([-1.0, 0.0, 0.0, 2.0], "words")  # a bin for each of -1, 0, 1, 2
    assert [part.split("<")[0].split(": ")[1] for part in whole.split("<title>")[1:]] == ["1", "2", "0", "1"]


def test_the_command_writes_json_and_an_escaped_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (32, 24), (10, 200, 30)).save(tmp_path / "1.png")
    rows = [pair(1, "<script>alert(1)</script> yes", "no " * 30), pair(2, "A dog", "A dog.")]
    write_rows(tmp_path / "pairs.jsonl", rows)
    words = [
        "audit",
        str(tmp_path / "pairs.jsonl"),
        "--image_root",
        str(tmp_path),
        "--run_dir",
        str(tmp_path / "r"),
        "examples=1",
    ]
    assert main(words) == 0, capsys.readouterr().err
    record = json.loads((tmp_path / "r" / "audit" / "audit.json").read_text())
    assert record["pairs"] == 2 and record["findings"]["blind"]["state"] == "unknown"
    page = (tmp_path / "r" / "audit" / "audit.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "Content-Security-Policy" in page
    assert main(["audit", f"pairs={tmp_path / 'pairs.jsonl'}", f"run_dir={tmp_path / 'words'}"]) == 0
    assert page.count("data:image/jpeg;base64,") >= 1 and "missing image: 2.png" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "MEND  Length" in capsys.readouterr().out


def test_an_audit_is_the_same_every_time(tmp_path: Path) -> None:
    rows = [pair(n, f"word{n} yes", f"word{n} no no") for n in range(60)]
    write_rows(tmp_path / "pairs.jsonl", rows)

    def made(name: str) -> dict[str, str]:
        fields = {"run_dir": tmp_path, "name": name, "pairs": tmp_path / "pairs.jsonl"}
        outputs = run(validate(Recipe, fields, "t")).manifest()["outputs"]
        return {name: item["sha256"] for name, item in outputs.items()}

    assert made("a") == made("b")
