"""Claims, their scores, and the judge's agreement with the annotations."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from align.config.recipe import validate
from align.errors import RecipeError
from align.rows.schema import Candidate, Claim, Message, Verdict, read_rows, write_rows
from data_tools.judge.agreement import confusion, measure_agreement, rates
from data_tools.judge.stage import Recipe, run
from data_tools.material.claims import DEFAULT_QUESTION, ask_about, read_yes_no, score_claims, split_objects


def claim(p_yes: float | None, p_no: float | None) -> Claim:
    return Claim(text="dog", question="?", p_yes=p_yes, p_no=p_no)


def test_objects_are_split_once_each_and_asked_with_their_article() -> None:
    assert split_objects("A dog, two dogs near a bus. No cat.", "strict") == ["dog", "bus"]
    assert ask_about("apple", "Is there {object} in the image?") == "Is there an apple in the image?"
    assert ask_about("skis", "Is there {object}?") == "Is there a pair of skis?"


def test_yes_and_no_sum_over_their_spellings() -> None:
    logprobs = {"Yes": math.log(0.3), " yes": math.log(0.2), "No": math.log(0.4), "Not": math.log(0.05)}
    found = read_yes_no(logprobs)
    assert found is not None
    assert found == pytest.approx((0.5, 0.4))
    assert read_yes_no({"NO": math.log(0.9)}) == pytest.approx((0.0, 0.9))
    assert read_yes_no({"Maybe": 0.0, "Yesterday": -1.0}) is None
    assert read_yes_no({}) is None


def test_the_score_counts_denied_claims() -> None:
    assert score_claims([claim(0.9, 0.1), claim(0.1, 0.9), claim(0.2, 0.7)]) == (-2.0, "")
    assert score_claims([claim(0.5, 0.5)]) == (0.0, "")  # denied only if p_no > p_yes
    assert score_claims([]) == (None, "no claim to check")
    score, reason = score_claims([claim(0.9, 0.1), claim(None, None)])
    assert score is None and "neither yes nor no" in reason


def test_agreement_by_hand() -> None:
    # true: 3 kept, 1 denied; invented: 1 kept, 3 caught.
    claims = [("a", True, True)] * 3 + [("a", True, False), ("b", False, True)] + [("b", False, False)] * 3
    assert confusion(claims).tolist() == [[3, 1, 0, 0], [0, 0, 1, 3]]
    found = {name: float(value) for name, value in rates(np.array([3, 1, 1, 3])).items()}
    assert found == {
        "accuracy": 0.75,
        "balanced_accuracy": 0.75,
        "kappa": 0.5,
        "invented_caught": 0.75,
        "true_kept": 0.75,
    }


def test_kappa_and_balance_see_through_a_judge_that_always_says_yes() -> None:
    found = rates(np.array([90, 0, 10, 0]))
    assert (float(found["accuracy"]), float(found["kappa"])) == (0.9, 0.0)
    assert (float(found["balanced_accuracy"]), float(found["invented_caught"])) == (0.5, 0.0)


def test_the_interval_resamples_images_not_claims() -> None:
    # Ten images; the judge is right on all claims of five and wrong on all of the others.
    claims = [(str(i), True, i < 5) for i in range(10) for _ in range(50)]
    found = measure_agreement([*claims, ("x", False, False)], seed=0)["true_kept"]
    assert found["value"] == 0.5 and found["ci_high"] - found["ci_low"] > 0.45
    assert measure_agreement([], seed=0)["balanced_accuracy"] is None


def world(tmp_path: Path) -> tuple[Path, Path]:
    """Two images: 1 shows a dog, 2 shows a cat (and, by its caption, a car)."""
    images = [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}]
    names = {17: "cat", 18: "dog"}
    tree = {
        "images": images,
        "categories": [{"id": key, "name": name} for key, name in names.items()],
        "annotations": [{"image_id": 1, "category_id": 18}, {"image_id": 2, "category_id": 17}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(tree))
    said = {"images": images, "annotations": [{"image_id": 2, "caption": "a cat in a car"}]}
    (tmp_path / "captions.json").write_text(json.dumps(said))
    return tmp_path / "instances.json", tmp_path / "captions.json"


def test_the_oracle_judges_by_instances_and_captions(tmp_path: Path) -> None:
    instances, captions = world(tmp_path)
    texts = {"dev-1#0": "a dog and a cat", "dev-2#0": "a cat near a car", "dev-2#1": "the sky"}
    rows = [
        Candidate(
            id=row_id,
            prompt_id=row_id[:5],
            images=[f"{row_id[4]}.png"],
            prompt=[Message(role="user", content="Describe.")],
            text=text,
            finish_reason="stop",
            num_tokens=5,
            meta={"split": "dev", "image_id": int(row_id[4])},
        )
        for row_id, text in texts.items()
    ]
    write_rows(tmp_path / "candidates.jsonl", rows)
    stage = Recipe(
        run_dir=tmp_path / "run",
        kind="oracle",
        score="denied",
        candidates=tmp_path / "candidates.jsonl",
        image_root=tmp_path,
        truth=[{"instances": instances, "captions": captions}],  # type: ignore[list-item]
    )
    folder = run(stage)
    verdicts = {row.candidate_id: row for row in read_rows(Verdict, folder.final / "verdicts.jsonl")}
    assert {row_id: row.score for row_id, row in verdicts.items()} == {
        "dev-1#0": -1.0,
        "dev-2#0": 0.0,
        "dev-2#1": None,
    }
    assert [item.supported for item in verdicts["dev-1#0"].claims] == [True, False]
    agreement = json.loads((folder.final / "agreement.json").read_text())
    assert agreement["confusion"] == {
        "true_kept": 3,
        "true_denied": 0,
        "invented_kept": 0,
        "invented_caught": 1,
    }
    assert agreement["kappa"]["value"] == 1.0


def test_a_judge_without_a_model_is_a_wrong_recipe(tmp_path: Path) -> None:
    values = {"run_dir": tmp_path, "candidates": tmp_path, "image_root": tmp_path}
    with pytest.raises(RecipeError, match="needs `model`"):
        validate(Recipe, values, "judge.yaml")
    with pytest.raises(RecipeError, match="must contain"):
        validate(Recipe, values | {"model": "m", "question": "Is it true?"}, "judge.yaml")
    assert "{object}" in DEFAULT_QUESTION
