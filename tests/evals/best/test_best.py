"""Best of n: which answer is chosen, what the curve says of it, and that the reward is the checkpoints'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align.claims import PictureTruth
from align.config.recipe import validate
from align.errors import AlignError, RecipeError
from align.models.loading import ModelSection
from align.rows.schema import Candidate, Message, Verdict, read_rows, write_rows
from evals.best import stage
from evals.best.curve import best_of, draw_curve
from evals.best.ranking import Logps, Ranked, by_reward, by_verdicts, measure_logps, read_groups

PROMPT = [Message(role="user", content="Describe the image.")]


def _candidate(prompt: str, draw: int, text: str, tokens: int = 5, images: tuple[str, ...] = ()) -> Candidate:
    return Candidate(
        id=f"{prompt}#{draw}",
        prompt_id=prompt,
        images=list(images),
        prompt=PROMPT,
        text=text,
        finish_reason="stop",
        num_tokens=tokens,
        meta={"image_id": 1},
    )


def test_the_best_of_n_is_among_the_first_n_draws_and_equals_go_to_the_earlier() -> None:
    group = [
        Ranked(_candidate("p", draw, "x"), score) for draw, score in ((0, 0.1), (1, None), (3, 0.5), (6, 0.5))
    ]
    assert [best_of(group, n).draw for n in (1, 2, 3, 4, 8)] == [0, 0, 0, 3, 3]
    unscored = [Ranked(_candidate("p", draw, "x"), None) for draw in (0, 2)]
    assert best_of(unscored, 8).draw == 0
    later = [Ranked(_candidate("p", 2, "x"), 1.0)]  # the first draws failed
    assert best_of(later, 1).draw == 2


def test_the_reward_is_the_log_ratio_a_token_not_its_sum() -> None:
    short, long = Logps("p#0", -3.0, -4.0, 2), Logps("p#1", -5.0, -7.0, 8)
    assert (short.reward, long.reward) == (0.5, 0.25)
    rows = [[_candidate("p", 0, "a"), _candidate("p", 1, "b")]]
    ranked = by_reward(rows, {"p#0": short, "p#1": long})
    assert best_of(ranked[0], 2).row.id == "p#0"


def test_the_curve_measures_what_is_chosen_and_counts_every_draw() -> None:
    truth = PictureTruth(counts={"dog": 1, "cat": 1})
    texts = ["A dog and a car.", "A dog.", "A dog and a cat."]
    groups = [
        [Ranked(_candidate(name, draw, text, 4 + draw), float(draw)) for draw, text in enumerate(texts)]
        for name in ("p", "q")
    ]
    points = draw_curve(groups, [1, 2, 4], {"p": truth, "q": truth}, seed=0)
    assert [point.measures["instance_precision"].value for point in points] == [50.0, 100.0, 100.0]
    assert [point.measures["object_recall"].value for point in points] == [50.0, 50.0, 100.0]
    assert points[2].measures["instance_precision"].delta == 50.0
    assert points[0].measures["words"].delta == 0.0
    assert [point.moved for point in points] == [0.0, 1.0, 1.0]
    # 4, 4 + 5, and four draws of which one came twice: 4 + 5 + 6 and the mean of them once more
    assert [point.tokens for point in points] == [4.0, 9.0, 20.0]


def test_without_truth_the_text_alone_is_measured() -> None:
    groups = [[Ranked(_candidate("p", 0, "A dog, a dog."), 0.0), Ranked(_candidate("p", 1, "A dog."), 1.0)]]
    points = draw_curve(groups, [1, 2], {}, seed=0)
    assert "instance_precision" not in points[0].measures
    assert [point.measures["repeated_captions"].value for point in points] == [100.0, 0.0]


@pytest.fixture
def sampled(tmp_path: Path, tiny_world: Path) -> tuple[Path, list[Candidate]]:
    """Two prompts of two answers each on the world's dev pictures, as `align sample` writes them."""
    pictures = sorted((tiny_world / "images" / "dev").iterdir())[:2]
    rows = [
        _candidate(f"prompt-{number}", draw, text, images=(f"dev/{picture.name}",))
        for number, picture in enumerate(pictures)
        for draw, text in enumerate(("A dog and a cat.", "Two people on the left."))
    ]
    for row in rows:
        row.meta["image_id"] = int(Path(row.images[0]).stem)
    write_rows(tmp_path / "candidates.jsonl", rows)
    return tmp_path / "candidates.jsonl", rows


def test_a_policy_that_is_its_reference_rewards_nothing_and_a_stop_goes_on(
    sampled: tuple[Path, list[Candidate]], base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    section = ModelSection(path=str(base_checkpoint), dtype="float32")
    groups, store = read_groups(sampled[0]), tmp_path / "logps.jsonl"
    whole = measure_logps(groups, section, section, tiny_world / "images", store)
    assert len(whole) == 4 and all(found.reward == 0.0 and found.policy < 0 for found in whole.values())
    lines = store.read_text().splitlines()
    store.write_text("\n".join([*lines[:2], lines[2][:20]]))  # killed while it wrote
    again = measure_logps(groups, section, section, tiny_world / "images", store)
    assert again == whole and store.read_text().splitlines() == lines


def test_the_stage_ranks_by_verdicts_and_writes_the_curve(
    sampled: tuple[Path, list[Candidate]], tiny_world: Path, tmp_path: Path
) -> None:
    path, rows = sampled
    scores = {row.id: float(row.id.endswith("#1")) for row in rows}
    verdicts = [
        Verdict(
            candidate_id=row.id, prompt_id=row.prompt_id, judge="j", prompt_sha256="0", score=scores[row.id]
        )
        for row in rows
    ]
    write_rows(tmp_path / "verdicts.jsonl", verdicts)
    annotations = tiny_world / "annotations" / "instances_dev.json"
    values: dict[str, Any] = {
        "run_dir": tmp_path / "run",
        "candidates": path,
        "verdicts": tmp_path / "verdicts.jsonl",
        "n": [1, 2],
        "truth": [{"instances": annotations}],
    }
    folder = stage.run(validate(stage.Recipe, values, where="test"))
    chosen = list(read_rows(Candidate, folder.final / "best.jsonl"))
    assert [row.id for row in chosen] == ["prompt-0#1", "prompt-1#1"]
    curve = json.loads((folder.final / "curve.json").read_text())
    assert [point["n"] for point in curve["points"]] == [1, 2]
    assert "instance_precision" in curve["points"][1]["measures"]
    assert "<svg xmlns" in (folder.final / "curve.svg").read_text()


def test_what_cannot_be_ranked_is_named(sampled: tuple[Path, list[Candidate]], tmp_path: Path) -> None:
    path, rows = sampled
    write_rows(tmp_path / "verdicts.jsonl", [])
    with pytest.raises(AlignError, match="no verdict on prompt-0#0"):
        by_verdicts(read_groups(path), tmp_path / "verdicts.jsonl")
    write_rows(tmp_path / "other.jsonl", [rows[0].model_copy(update={"id": "mine"})])
    with pytest.raises(AlignError, match="does not end in #NUMBER"):
        read_groups(tmp_path / "other.jsonl")
    values = {"run_dir": tmp_path, "candidates": path}
    with pytest.raises(RecipeError, match="set policy and reference, or verdicts"):
        validate(stage.Recipe, values, where="test")
    both = {"verdicts": "v", "n": [2, 1]}
    with pytest.raises(RecipeError, match="n must rise"):
        validate(stage.Recipe, values | both, where="test")
