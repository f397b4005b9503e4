"""Pairs and their length balance, on answers small enough to check by hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from align.errors import AlignError
from align.rows.schema import (
    Candidate,
    Claim,
    ClaimCount,
    Message,
    PreferenceRow,
    Verdict,
    read_rows,
    write_rows,
)
from data_tools.pairs.balance import GapCounts, Limits, Pair, Picker, trim
from data_tools.pairs.stage import Recipe, run


def candidate(prompt: str, number: int, text: str, tokens: int, finish: str = "stop") -> Candidate:
    split, image_id = prompt.split("-")
    return Candidate(
        id=f"{prompt}#{number}",
        prompt_id=prompt,
        images=[f"{image_id}.png"],
        prompt=[Message(role="user", content="Describe.")],
        text=text,
        finish_reason=finish,
        num_tokens=tokens,
        meta={"split": split, "image_id": int(image_id), "count": 1},
    )


def verdict(row: Candidate, yes: str, no: str = "", unscored: str = "") -> Verdict:
    claims = [Claim(text=name, question="?", p_yes=0.9, p_no=0.1) for name in yes.split()]
    claims += [Claim(text=name, question="?", p_yes=0.2, p_no=0.8) for name in no.split()]
    return Verdict(
        candidate_id=row.id,
        prompt_id=row.prompt_id,
        judge="j",
        prompt_sha256="p",
        score=None if unscored else -float(len(no.split())),
        unscored_reason=unscored,
        claims=claims,
    )


def recipe(tmp_path: Path, judged: list[tuple[Candidate, Verdict]], low: float = 0.8, **fields) -> Recipe:
    write_rows(tmp_path / "candidates.jsonl", [row for row, _ in judged])
    write_rows(tmp_path / "verdicts.jsonl", [row for _, row in judged])
    measured = {"balanced_accuracy": {"value": low + 0.05, "ci_low": low, "ci_high": low + 0.1}}
    (tmp_path / "agreement.json").write_text(json.dumps(measured))
    files = {name: tmp_path / f"{name}.jsonl" for name in ("candidates", "verdicts")}
    unbalanced: dict[str, Any] = dict.fromkeys(("mention_tolerance", "number_word_tolerance"))
    fields = unbalanced | fields
    return Recipe(run_dir=tmp_path / "run", agreement=tmp_path / "agreement.json", **files, **fields)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def built(stage: Recipe) -> list[str]:
    return [row.id for row in read_rows(PreferenceRow, run(stage).final / "pairs.parquet")]


def one_prompt() -> list[tuple[Candidate, Verdict]]:
    rows = [
        (candidate("train-1", 0, "a dog and a cat", 6), "dog cat", ""),
        (candidate("train-1", 1, "a dog, a cat, a car", 9), "dog cat", "car"),
        (candidate("train-1", 2, "a dog", 3), "dog", ""),
        (candidate("train-1", 3, "a dog, a cat and a", 6, "length"), "dog cat", ""),
        (candidate("train-1", 4, "", 1), "", ""),
        (candidate("train-1", 5, "a sky", 3), "", ""),
    ]
    reasons = {4: "no claim to check", 5: "no claim to check"}
    return [(row, verdict(row, yes, no, reasons.get(i, ""))) for i, (row, yes, no) in enumerate(rows)]


def test_who_is_chosen_and_why_the_others_are_not(tmp_path: Path) -> None:
    stage = recipe(tmp_path, one_prompt(), length_tolerance=None)
    # #0 beats #1 (same confirmed claims, one denied less); #2 confirms less; #3 was cut off.
    assert built(stage) == ["train-1#0>train-1#1"]
    dropped = json.loads((stage.stage_dir / "dropped.json").read_text())
    counts = {reason: item["count"] for reason, item in dropped["train pairs"]["dropped"].items()}
    assert counts == {"tie": 3, "chosen answer confirms too little": 1, "chosen answer is truncated": 1}
    unusable = {reason: item["count"] for reason, item in dropped["train answers"]["dropped"].items()}
    assert unusable == {"empty answer": 1, "unscored: no claim to check": 1}
    row = next(iter(read_rows(PreferenceRow, stage.stage_dir / "pairs.parquet")))
    assert row.meta["margin"] == 1.0 and row.meta["rejected_denied"] == ["car"]
    assert (row.meta["chosen_tokens"], row.meta["rejected_tokens"]) == (6, 9)


def test_losing_confirmed_claims_can_be_allowed(tmp_path: Path) -> None:
    assert built(recipe(tmp_path, one_prompt(), length_tolerance=None, min_confirmed_gain=None)) == [
        "train-1#0>train-1#1",
        "train-1#2>train-1#1",
    ]


def test_what_is_left_out_has_to_be_made_up_for(tmp_path: Path) -> None:
    texts = [("a", "dog cat", ""), ("b", "dog", ""), ("c", "dog", "car bus")]
    rows = [candidate("train-1", number, text, 5) for number, (text, _, _) in enumerate(texts)]
    judged = [(row, verdict(row, yes, no)) for row, (_, yes, no) in zip(rows, texts, strict=True)]
    # Both beat #2 by 2: #0 confirms one more, #1 none.
    kept = {}
    for gain in (0.0, 0.5):
        stage = recipe(_made(tmp_path / str(gain)), judged, length_tolerance=None, min_confirmed_gain=gain)
        kept[gain] = built(stage)
    assert kept == {0.0: ["train-1#0>train-1#2", "train-1#1>train-1#2"], 0.5: ["train-1#0>train-1#2"]}
    with pytest.raises(AlignError, match="0 train pairs"):
        run(recipe(_made(tmp_path / "1"), judged, length_tolerance=None, min_confirmed_gain=1.0))


def test_a_chosen_answer_may_be_asked_to_have_no_fault(tmp_path: Path) -> None:
    texts = [("a", "dog cat", "car"), ("b", "dog cat", ""), ("c", "dog", "car bus")]
    rows = [candidate("train-1", number, text, 5) for number, (text, _, _) in enumerate(texts)]
    judged = [(row, verdict(row, yes, no)) for row, (_, yes, no) in zip(rows, texts, strict=True)]
    more = {"length_tolerance": None, "max_pairs_per_prompt": 3}
    stage = recipe(_made(tmp_path / "any"), judged, **more)
    assert sorted(built(stage)) == ["train-1#0>train-1#2", "train-1#1>train-1#0", "train-1#1>train-1#2"]
    stage = recipe(_made(tmp_path / "none"), judged, max_chosen_faults=0, **more)
    assert sorted(built(stage)) == ["train-1#1>train-1#0", "train-1#1>train-1#2"]
    dropped = json.loads((stage.stage_dir / "dropped.json").read_text())["train pairs"]["dropped"]
    assert dropped["chosen answer has too many faults"]["count"] == 1


def test_at_most_max_pairs_a_prompt_and_best_against_worst(tmp_path: Path) -> None:
    rows = [candidate("train-1", number, f"text {number}", 5) for number in range(4)]
    denied = ["", "car", "car bus", "car bus bed"]
    judged = [(row, verdict(row, "dog", no)) for row, no in zip(rows, denied, strict=True)]
    # Of six pairs with margins 1, 1, 1, 2, 2, 3: the widest, then one of the two twos.
    stage = recipe(tmp_path, judged, length_tolerance=None)
    assert built(stage) == ["train-1#0>train-1#2", "train-1#0>train-1#3"]
    stage = recipe(tmp_path, judged, length_tolerance=None, strategy="best_worst")
    assert built(stage) == ["train-1#0>train-1#3"]


def test_dev_prompts_never_become_training_pairs(tmp_path: Path) -> None:
    judged = one_prompt()
    for number, (text, no) in enumerate((("a dog", ""), ("a dog and a car", "car"))):
        row = candidate("dev-2", number, text, 4)
        judged.append((row, verdict(row, "dog", no)))
    truth = {
        "images": [{"id": 2, "file_name": "2.png"}],
        "categories": [{"id": 18, "name": "dog"}],
        "annotations": [{"image_id": 2, "category_id": 18}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(truth))
    stage = recipe(
        tmp_path, judged, length_tolerance=None, truth=[{"instances": tmp_path / "instances.json"}]
    )
    assert built(stage) == ["train-1#0>train-1#1"]
    check = run(stage).manifest()["metrics"]["dev_check"]
    assert check == {"pairs": 1, "right": 1, "tied": 0, "wrong": 0, "right_share": 1.0}


@pytest.mark.parametrize(("n", "why"), [(0, "measured on nothing"), (9, "9 decisions .* of one kind")])
def test_a_judge_that_nobody_measured_names_the_keys(tmp_path: Path, n: int, why: str) -> None:
    stage = recipe(tmp_path, one_prompt())
    (tmp_path / "agreement.json").write_text(json.dumps({"n": n, "balanced_accuracy": None}))
    with pytest.raises(AlignError, match=why) as error:
        run(stage)
    assert "`truth`" in (fix := error.value.fix or "") and "`labels`" in fix
    assert "min_balanced_accuracy=0" in fix
    assert built(stage.model_copy(update={"min_balanced_accuracy": 0.0}))


def test_a_judge_near_chance_is_refused(tmp_path: Path) -> None:
    stage = recipe(tmp_path, one_prompt(), low=0.55)
    with pytest.raises(AlignError, match=r"near chance.*lower bound must reach 0.6"):
        run(stage)
    assert not stage.stage_dir.exists()


def test_no_pairs_is_an_error_and_leaves_no_folder(tmp_path: Path) -> None:
    stage = recipe(tmp_path, [item for item in one_prompt() if item[0].id != "train-1#1"])
    with pytest.raises(AlignError, match="0 train pairs"):
        run(stage)
    assert not stage.stage_dir.exists()


def test_style_is_balanced_after_length(tmp_path: Path) -> None:
    judged = []
    for image in range(8):
        # One prompt in four has commas on the chosen side alone.
        text = "a dog, a cat" if image % 4 == 0 else "a dog and a cat"
        for number, (said, no) in enumerate(((text, ""), ("a dog and a car", "car"))):
            row = candidate(f"train-{image}", number, said, 4)
            judged.append((row, verdict(row, "dog", no)))
    stage = recipe(tmp_path, judged, style_tolerance=0.1)
    assert built(stage) == [f"train-{image}#0>train-{image}#1" for image in (1, 2, 3, 5, 6, 7)]
    dropped = json.loads((stage.stage_dir / "dropped.json").read_text())["train pairs"]
    assert dropped["kept"] == 6 and dropped["dropped"]["style balance"]["count"] == 2
    metrics = run(stage).manifest()["metrics"]
    assert metrics["style_gap"]["before"]["commas"] > 0.4 and metrics["style_gap"]["after"]["commas"] == 0


def test_a_repetition_is_a_fault_and_chosen_may_not_repeat_more(tmp_path: Path) -> None:
    texts = [
        ("a dog and a cat", "dog cat", ""),
        ("a dog, a cat and a dog", "dog cat", ""),
        ("a dog, a car and a dog", "dog", "car"),
        ("a cat and a cat, a dog", "dog cat", ""),
    ]
    rows = [candidate("train-1", number, text, 6) for number, (text, _, _) in enumerate(texts)]
    judged = [(row, verdict(row, yes, no)) for row, (_, yes, no) in zip(rows, texts, strict=True)]
    # By hand: faults 0, 1, 2, 1. What the judge scores alike (0, 0, -1, 0) makes no pair; #2 has a fault more
    # than each of the others, and none of them repeats more than it does.
    stage = recipe(tmp_path, judged, max_pairs_per_prompt=9, length_tolerance=None)
    assert built(stage) == [f"train-1#{n}>train-1#2" for n in (0, 1, 3)]
    row = next(iter(read_rows(PreferenceRow, stage.stage_dir / "pairs.parquet")))
    sides = {key: row.meta[key] for key in ("chosen_true", "chosen_false", "rejected_true", "rejected_false")}
    assert sides == {"chosen_true": 2, "chosen_false": 0, "rejected_true": 1, "rejected_false": 1}
    assert (row.meta["chosen_repetition"], row.meta["rejected_repetition"]) == (0, 1)
    # A scored repetition: #1 and #3 lose a point, and #0 is better than both.
    for number in (1, 2, 3):
        judged[number][1].score = float(judged[number][1].score or 0) - 1
    stage = recipe(_made(tmp_path / "scored"), judged, max_pairs_per_prompt=9, length_tolerance=None)
    assert built(stage) == [f"train-1#{a}>train-1#{b}" for a, b in ((0, 1), (0, 2), (0, 3), (1, 2), (3, 2))]
    # Denied claims alone would prefer an answer that repeats itself: refused, unless that is wanted.
    judged = [(rows[1], verdict(rows[1], "dog cat")), (rows[0], verdict(rows[0], "dog", "cat"))]
    refused = recipe(_made(tmp_path / "more"), judged, length_tolerance=None)
    with pytest.raises(AlignError, match="0 train pairs"):
        run(refused)
    loose = {"max_more_repeats": None, "min_fault_drop": 0, "repetition_tolerance": None}
    stage = recipe(_made(tmp_path / "loose"), judged, length_tolerance=None, **loose)
    assert built(stage) == ["train-1#1>train-1#0"]


def test_pairs_that_differ_in_what_is_left_out_can_be_taken(tmp_path: Path) -> None:
    rows = [candidate("train-1", number, text, 5) for number, text in enumerate(("a dog, a cat", "a dog"))]
    judged = [(row, verdict(row, yes)) for row, yes in zip(rows, ("dog cat", "dog"), strict=True)]
    judged[0][1].score = 1.0  # as `score: utility` may say
    with pytest.raises(AlignError, match="0 train pairs"):
        run(recipe(_made(tmp_path / "a"), judged, length_tolerance=None))
    stage = recipe(_made(tmp_path / "b"), judged, length_tolerance=None, min_fault_drop=0)
    assert built(stage) == ["train-1#0>train-1#1"]


def test_counts_of_the_judge_stage_are_what_pairs_are_picked_by(tmp_path: Path) -> None:
    """Claims by kind, where a verdict has them, stand for its claims; other kinds than presence count too."""
    rows = [candidate("train-1", number, text, 5) for number, text in enumerate(("two dogs", "three dogs"))]
    judged = [(row, verdict(row, "dog")) for row in rows]
    judged[0][1].counts = [ClaimCount(kind="presence", true=1), ClaimCount(kind="number", true=1)]
    judged[1][1].counts = [ClaimCount(kind="presence", true=1), ClaimCount(kind="number", false=1)]
    judged[0][1].score, judged[1][1].score = 1.0, -0.5
    stage = recipe(tmp_path, judged, length_tolerance=None, min_confirmed_gain=1.0)
    assert built(stage) == ["train-1#0>train-1#1"]
    metrics = run(stage).manifest()["metrics"]
    assert (metrics["chosen_true"], metrics["rejected_true"], metrics["rejected_false"]) == (2, 1, 1)
    assert (metrics["chosen_number_words"], metrics["chosen_mentions"]) == (1, 1)


def test_mentions_are_balanced_like_length(tmp_path: Path) -> None:
    judged = []
    for image in range(8):
        # In half of the prompts chosen names one object fewer, in two one more, at the same length.
        said = "a dog" if image < 4 else "a dog and a cat" if image < 6 else "a dog, a cat, a cup"
        for number, (text, no) in enumerate(((said, ""), ("a dog and a car", "car"))):
            row = candidate(f"train-{image}", number, text, 5)
            judged.append((row, verdict(row, "dog", no)))
    # Gaps -1 x 4, 0 x 2, +1 x 2: the mean is -1/4, within 0.1 after two of the -1 went, the last ids first.
    stage = recipe(tmp_path, judged, mention_tolerance=0.1)
    assert built(stage) == [f"train-{image}#0>train-{image}#1" for image in (0, 1, 4, 5, 6, 7)]
    metrics = run(stage).manifest()["metrics"]
    assert metrics["gaps"]["mentions"] == {"by_margin": -0.25, "searched": -0.25, "after": 0.0}
    assert metrics["trimmed"] == 2


def pair(prompt: int, gap: int, margin: float = 1.0, tag: str = "") -> Pair:
    return Pair(f"p{prompt}", f"c{prompt}{tag}", f"r{prompt}{tag}", margin, (gap,))


def length(tolerance: float | None) -> Limits:
    return Limits((tolerance,), may_fall=(False,))


def gaps(*values: int) -> Counter[tuple[int, ...]]:
    return Counter((value,) for value in values)


def balance(eligible: dict[str, list[Pair]], most: int, tolerance: float | None, max_trimmed: float):
    """Both passes: what was balanced, the pairs that stay, those that are trimmed."""
    counts = GapCounts(most, seed=0, limits=length(tolerance))
    for prompt_id, pairs in eligible.items():
        counts.add(prompt_id, pairs)
    found = counts.balanced(max_trimmed)
    picker = Picker(found)
    lots = [picker.pick(prompt_id, pairs) for prompt_id, pairs in sorted(eligible.items())]
    kept, trimmed = ([item for lot in lots for item in lot[side]] for side in (0, 1))
    assert (len(kept), len(trimmed)) == (found.pairs, found.trimmed)
    assert sum(item.gaps[0] for item in kept) == pytest.approx(found.after[0] * len(kept))
    return found, kept, trimmed


def test_the_ratio_search_mixes_shorter_and_longer() -> None:
    # Each prompt offers a wide pair that shortens by 4 and a narrow one that lengthens by 4.
    eligible = {f"p{i}": [pair(i, -4, 2.0, "s"), pair(i, 4, 1.0, "l")] for i in range(400)}
    found, kept, _ = balance(eligible, 1, tolerance=0.25, max_trimmed=0.5)
    assert found.before == (-4,)  # by margin alone every pair shortens
    assert 0.4 <= found.ratio <= 0.6 and abs(found.searched[0]) < 0.2
    assert abs(found.after[0]) <= 0.25 and len(kept) == 400
    assert len({chosen.prompt_id for chosen in kept}) == 400


def test_no_tolerance_leaves_the_best_margins() -> None:
    eligible = {f"p{i}": [pair(i, -4, 2.0, "s"), pair(i, 4, 1.0, "l")] for i in range(9)}
    found, kept, _ = balance(eligible, 1, tolerance=None, max_trimmed=0.5)
    assert (found.ratio, found.after, {item.gaps for item in kept}) == (0.0, (-4.0,), {(-4,)})


def test_of_equal_gaps_the_last_ids_are_trimmed() -> None:
    eligible = {f"p{i}": [pair(i, -4)] for i in range(8)} | {"p8": [pair(8, 8)], "p9": [pair(9, 4)]}
    # Sum -20 over 10; without two of -4: -12 over 8; without a third, the most that may go: -8 over 7.
    found, _, trimmed = balance(eligible, 1, tolerance=0.25, max_trimmed=0.3)
    assert [item.prompt_id for item in trimmed] == ["p5", "p6", "p7"]
    assert found.after == pytest.approx((-8 / 7,))


def test_trimming_takes_the_widest_gaps_of_the_offending_side() -> None:
    # Sum -10 over 5; without -9: -1 over 4, mean 0.25 in size: within 0.25.
    assert trim(gaps(-9, -3, 1, 2, -1), length(0.25), max_trimmed=0.5) == {(-9,): 1}


def test_trimming_stops_at_its_limit() -> None:
    assert trim({(-4,): 10}, length(0.25), max_trimmed=0.3) == {(-4,): 3}


def test_trimming_turns_round_when_it_went_too_far() -> None:
    # Sum 9 over 3: the 10 goes first, then the sum is -1 over 2: more than 0.25, so the -2 goes, then the 1.
    assert trim(gaps(10, -2, 1), length(0.25), max_trimmed=1.0) == gaps(10, -2, 1)
    assert trim(gaps(10, -2, 1, 0), length(1.0), max_trimmed=1.0) == gaps(10)


def test_trimming_several_counts_takes_what_spoils_them_together() -> None:
    both = Limits((1.0, 1.0), may_fall=(False, False))
    found = Counter([(4, 0), (0, 4), (3, 3), (0, 0)])
    # Sums 7 and 7 over 4: without (3, 3) they are 4 and 4 over 3, without (4, 0) they are 3 and 7.
    assert trim(found, both, max_trimmed=0.25) == {(3, 3): 1}
    # Then without (0, 4) 4 and 0 over 2, without (0, 0) 4 and 4 over 2; of equal ones the first in order.
    assert trim(found, both, max_trimmed=0.5) == {(3, 3): 1, (0, 4): 1}
    # In units of their tolerances: 4 and 4 over 4 are a half and 2, so that the second count is what matters.
    assert trim(Counter([(4, 0), (0, 4), (0, 0), (0, 0)]), Limits((2.0, 0.5), (False, False)), 0.25) == {
        (0, 4): 1
    }


def test_a_count_that_may_fall_is_held_from_above_alone() -> None:
    falls = Limits((0.5,), may_fall=(True,))
    assert trim(gaps(-3, -3, 0), falls, max_trimmed=1.0) == {}
    # Sum 3 over 4 is more than a half; without the 2 it is 1 over 3.
    assert trim(gaps(2, 1, 0, 0), falls, max_trimmed=1.0) == {(2,): 1}
    # Nothing is taken for a count without a tolerance.
    assert trim(gaps(9, 9), Limits((None,), (False,)), max_trimmed=1.0) == {}


def test_a_million_pairs_are_trimmed_in_lots() -> None:
    """Each step takes a thousandth of what is left, so the goal may be passed by as much, not by more."""
    gone = trim({(1,): 60_000, (-1,): 40_000}, length(0.1), max_trimmed=0.5)
    left = 60_000 - gone[1,] - 40_000
    assert set(gone) == {(1,)} and 0.1 - 2e-3 < left / (left + 80_000) <= 0.1


def test_files_in_another_order_give_the_same_pairs(tmp_path: Path) -> None:
    """Side by side where both files rise, loaded and sorted where they do not."""
    second = [(candidate("train-2", n, f"text {n}", 5), f"{'car ' * n}".strip()) for n in range(3)]
    judged = [*one_prompt(), *((row, verdict(row, "dog", no)) for row, no in second)]
    stage = recipe(tmp_path, judged, length_tolerance=None)
    rising = (run(stage).final / "pairs.parquet").read_bytes()
    write_rows(tmp_path / "candidates.jsonl", [row for row, _ in reversed(judged)])
    shuffled = stage.model_copy(update={"name": "again"})
    assert (run(shuffled).final / "pairs.parquet").read_bytes() == rising
    write_rows(tmp_path / "verdicts.jsonl", [row for _, row in judged[1:]])
    with pytest.raises(AlignError, match="no verdict on candidate train-1#0"):
        run(stage.model_copy(update={"name": "third"}))
