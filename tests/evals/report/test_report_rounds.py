"""The path over rounds: what `align score` writes of it, and how the report shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align.config.recipe import read_yaml
from evals import score
from evals.comparison.metric_line import Change, MetricLine
from evals.comparison.rounds import lines_by_round
from evals.report.stage import Recipe, run
from tests.evals.report.report_data import Habits, hand_made, line, write_scores

HABITS = {
    "sft": Habits(0.84, 0.40, 0.80),
    "one": Habits(0.86, 0.20, 0.82),
    "two": Habits(0.86, 0.08, 0.82),
}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A score folder: SFT against the second round, and both rounds on the way."""
    root = tmp_path_factory.mktemp("rounds")
    write_scores(root, HABITS, num_images=30)
    folders = {name: root / f"generate_{name}" for name in HABITS}
    recipe = score.Recipe(
        run_dir=root,
        name="score_rounds",
        checkpoints={"sft": folders["sft"], "dpo": folders["two"]},
        rounds=[folders["one"], folders["two"]],
        resamples=500,
    )
    return score.run(recipe).final


def told(ended: bool) -> dict[str, Any]:
    agreement = {"value": 0.9, "ci_low": 0.85, "ci_high": 0.94}
    kept = {"step": 40, "why": "the most of those that keep recall", "nothing": False}
    rounds = [
        {
            "round": n,
            "is_kept": True,
            "kept": kept,
            "agreement": agreement,
            "agreement_by_kind": {"number": {"value": 0.7, "ci_low": 0.6, "ci_high": 0.8}, "place": None},
            "stages": {"dpo": "dpo"},
        }
        for n in (1, 2)
    ]
    end = {"round": 3, "stage": "dpo", "why": "round3_dpo kept nothing: recall fell"}
    if ended:
        nothing = {"step": 0, "why": "recall fell", "nothing": True}
        rounds.append({**rounds[0], "round": 3, "is_kept": False, "kept": nothing})
    return {"asked": 3 if ended else 2, "kept": 2, "ended": end if ended else None, "rounds": rounds}


def test_each_round_against_where_they_started(scored: Path) -> None:
    main = {row["metric"]: row for row in json.loads((scored / "metrics.json").read_text())}
    lines = json.loads((scored / "rounds.json").read_text())
    assert len(lines) == len(json.loads((scored / "metrics.json").read_text()))
    found = next(item for item in lines if item["metric"] == "chair_s")
    one, two = found["rounds"]
    # The second round is the checkpoint of the main comparison: the same numbers, not scored twice.
    assert found["start"] == {
        "checkpoint": "sft",
        "value": main["chair_s"]["values"]["sft"],
        "ci": found["start"]["ci"],
    }
    assert (two["value"], two["delta"]) == (main["chair_s"]["values"]["dpo"], main["chair_s"]["delta"])
    assert one["delta"] == pytest.approx(one["value"] - found["start"]["value"], abs=1e-4)
    assert found["start"]["value"] > one["value"] > two["value"]
    assert {"checkpoints.sft", "checkpoints.dpo", "rounds.after_round_1", "rounds.after_round_2"} <= set(
        json.loads((scored / "manifest.json").read_text())["inputs"]
    )


def test_one_round_is_the_main_comparison(tmp_path: Path) -> None:
    write_scores(tmp_path, {"sft": HABITS["sft"], "dpo": HABITS["one"]}, num_images=8)
    folders = {name: tmp_path / f"generate_{name}" for name in ("sft", "dpo")}
    recipe = score.Recipe(
        run_dir=tmp_path, name="again", checkpoints=folders, rounds=[folders["dpo"]], resamples=100
    )
    folder = score.run(recipe).final
    assert not (folder / "rounds.json").exists()
    assert read_yaml(folder / "recipe.yaml")["rounds"] == [str(folders["dpo"])]


def test_lines_by_hand() -> None:
    row = MetricLine(
        task="chair",
        metric="chair_s",
        split="test",
        measures="invention",
        higher_is_better=False,
        n=9,
        clusters=9,
        values={"sft": 40.0, "after_round_1": 30.0, "after_round_2": 20.0},
        ci={"sft": (35, 45), "after_round_1": (25, 35)},
    )
    row.set_change("sft", "after_round_1", Change(delta=-10.0, ci_low=-12.0, ci_high=-8.0, p=0.01, mde=1.0))
    row.set_change("after_round_1", "after_round_2", Change(delta=-10.0))
    row.set_change("sft", "after_round_2", Change(delta=-20.0, ci_low=-22.0, ci_high=-18.0, p=0.001))
    (found,) = lines_by_round([row], "sft", 2)
    assert found["start"] == {"checkpoint": "sft", "value": 40.0, "ci": (35, 45)}
    assert [(item["round"], item["value"], item["ci"], item["delta"]) for item in found["rounds"]] == [
        (1, 30.0, (25, 35), -10.0),
        (2, 20.0, None, -20.0),
    ]


def page(scores: Path, out: Path, rounds: dict[str, Any] | None) -> str:
    path = None
    if rounds is not None:
        path = out / "rounds.json"
        path.write_text(json.dumps(rounds))
    folder = run(Recipe(run_dir=out, scores=scores, rounds=path)).final
    return (folder / "report.html").read_text()


def test_the_report_shows_the_path_and_what_ended_it(scored: Path, tmp_path: Path) -> None:
    html = page(scored, tmp_path, told(ended=True))
    assert "The path over rounds" in html
    assert (
        "Round 3 ended the loop: round3_dpo kept nothing: recall fell; the checkpoint of round 2 stands."
        in html
    )
    figure = html[html.index('id="rounds"') :].split("</figure>")[0]
    # Five measures have SFT and two rounds, the judge three: a marker each, with its numbers in a tip.
    assert figure.count("<polygon") == 5 * 3 + 3 + 1  # and one in the legend
    assert ">SFT</text>" in figure and ">round 3</text>" in figure  # four places have room for their names
    assert "90.0 [85.0, 94.0]" in figure and "judge&#39;s balanced accuracy" in figure.replace("'", "&#39;")
    assert "judge on number" in figure and "70.0 [60.0, 80.0]" in figure and "judge on place" in figure
    assert "yes, step 40" in figure and "Round 1: the most of those that keep recall." in figure
    assert "<td>no</td>" in figure and "Round 3: recall fell." in figure


def test_a_round_that_ended_before_its_training_has_no_step_and_no_reason_of_a_rule(
    scored: Path, tmp_path: Path
) -> None:
    rounds = told(ended=True)
    rounds["rounds"][2] |= {"kept": {}, "stages": {"judge": "round3_judge"}}
    why = "round3_pairs: 3 train pairs, at least 100 are wanted"
    rounds["ended"] |= {"stage": "pairs", "why": why}
    html = page(scored, tmp_path, rounds)
    assert f"Round 3 ended the loop: {why}; the checkpoint of round 2 stands." in html
    figure = html[html.index('id="rounds"') :].split("</figure>")[0]
    assert "Round 2: " in figure and "Round 3: " not in figure and "<td>no</td>" in figure


def test_one_kept_round_needs_no_figure_and_an_ended_one_says_so(tmp_path: Path) -> None:
    lines = [line("chair", "chair_s", (40, 40, 20), -26, -14), line("chair", "recall", (80, 80, 80), -2, 2)]
    scores = hand_made(tmp_path / "scores", lines)
    single = {**told(ended=False), "asked": 1, "kept": 1, "rounds": told(False)["rounds"][:1]}
    (tmp_path / "a").mkdir()
    assert "The path over rounds" not in page(scores, tmp_path / "a", single)
    (tmp_path / "b").mkdir()
    assert "The path over rounds" not in page(scores, tmp_path / "b", None)
    single["ended"], single["kept"] = {"round": 1, "stage": "dpo", "why": "dpo kept nothing"}, 0
    (tmp_path / "c").mkdir()
    assert "Round 1 ended the loop: dpo kept nothing; what it started from stands." in page(
        scores, tmp_path / "c", single
    )
