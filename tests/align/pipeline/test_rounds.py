"""Rounds of a pipeline: the stages they lay out, what ends them, and that a kill changes nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from align.errors import AlignError, RecipeError
from align.pipeline import Pipeline, Selection, describe, load_pipeline, run_pipeline
from align.pipeline.round_end import read_end
from align.pipeline.rounds import Ended, Loop, RoundSection
from data_tools.pairs.stage import TooFewPairs
from tests.align.pipeline.loop_pipeline import digests, tell_kept, write_loop


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    return write_loop(tmp_path)


def keys(pipeline: Pipeline, name: str) -> dict[str, Any]:
    step = next(step for step in pipeline if step.name == name)
    return step.recipe.model_dump(mode="json")


def test_one_round_is_the_file_as_it_stands(loop: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(loop)
    assert pipeline.names == ["world", "judge", "pairs", "clean", "last"]
    assert keys(pipeline, "clean")["data"] == f"{tmp_path}/start.parquet"
    assert keys(pipeline, "pairs")["verdicts"] == f"{tmp_path}/run/judge/verdicts.jsonl"
    assert keys(pipeline, "pairs")["max_pairs_per_prompt"] == 1 and keys(pipeline, "pairs")["seed"] == 3
    assert keys(pipeline, "last")["against"][1:] == [f"{tmp_path}/run/judge/verdicts.jsonl"]


def test_three_rounds_each_from_the_one_before(loop: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(loop, ["rounds=3", "round3_pairs.min_gap=2", "pairs.max_trimmed=0.1"])
    assert pipeline.names == [
        "world", "judge", "pairs", "clean", "round2_judge", "round2_pairs", "round2_clean", "round3_judge",
        "round3_pairs", "round3_clean", "last",
    ]  # fmt: skip
    run = tmp_path / "run"
    second, third = keys(pipeline, "round2_pairs"), keys(pipeline, "round3_pairs")
    assert second["verdicts"] == f"{run}/round2_judge/verdicts.jsonl"
    assert second["candidates"] == f"{tmp_path}/candidates.jsonl"
    # The list has two values: the last one holds for every later round.
    assert [p["max_pairs_per_prompt"] for p in (keys(pipeline, "pairs"), second, third)] == [1, 2, 2]
    assert [p["min_gap"] for p in (keys(pipeline, "pairs"), second, third)] == [1, 1, 2]
    assert {p["max_trimmed"] for p in (keys(pipeline, "pairs"), second, third)} == {0.1}
    assert [p["seed"] for p in (keys(pipeline, "pairs"), second, third)] == [3, 103, 203]
    assert keys(pipeline, "round2_clean")["data"] == f"{run}/clean/rows.parquet"
    assert keys(pipeline, "round3_clean")["data"] == f"{run}/round2_clean/rows.parquet"
    # Behind the loop: the last round's folder, and in a list every round's.
    last = keys(pipeline, "last")
    assert last["data"] == f"{run}/round3_clean/rows.parquet"
    assert last["against"][1:] == [
        f"{run}/{n}/verdicts.jsonl" for n in ("judge", "round2_judge", "round3_judge")
    ]


def test_variables_of_a_round_are_not_moved_into_it(loop: Path, tmp_path: Path) -> None:
    text = loop.read_text().replace("length_tolerance: null", "min_pairs: ${round.number}")
    loop.write_text(text + "\nround3_clean: {against: '${round.earlier.pairs}'}\n")
    assert keys(load_pipeline(loop), "clean")["against"] == [f"{tmp_path}/bench"]
    pipeline = load_pipeline(loop, ["rounds=3"])
    assert keys(pipeline, "round2_clean")["against"] == [f"{tmp_path}/bench"]
    earlier = [f"{tmp_path}/run/pairs", f"{tmp_path}/run/round2_pairs"]
    assert keys(pipeline, "round3_clean")["against"] == earlier
    numbers = [keys(pipeline, name)["min_pairs"] for name in ("pairs", "round2_pairs", "round3_pairs")]
    assert numbers == [1, 2, 3]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("rounds=0", "rounds = 0: must be a whole number from 1"),
        ("rounds=two", "rounds = 'two'"),
        ("round.stages=[judge,piars,clean]", "no stage 'piars' in this file (did you mean 'pairs'?)"),
        ("round.stages=[judge,clean]", "must stand one behind the other"),
        ("round.result=elsewhere/rows.parquet", "not in a folder of round.stages"),
        ("round.strat=x", "unknown key 'strat'"),
        ("round.by_round.pairs.min_gap=2", "round.by_round.pairs.min_gap = 2: must be a list"),
        ("round.by_round.last.max_bits=[1]", "round.by_round.last: not one of round.stages"),
        ("round2_pairs.min_gap=2", "rounds = 1: there is no round 2"),
    ],
)
def test_a_wrong_round_is_told_before_anything_runs(loop: Path, override: str, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_pipeline(loop, [override])
    assert said in str(error.value)


def test_a_second_round_that_starts_where_the_first_did_is_refused(loop: Path, tmp_path: Path) -> None:
    override = f"clean.data={tmp_path}/start.parquet"
    load_pipeline(loop, [override])
    with pytest.raises(RecipeError, match=r"write \$\{round\.model\}"):
        load_pipeline(loop, [override, "rounds=2"])


def test_a_round_that_keeps_nothing_ends_the_loop(
    loop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, three = tmp_path / "run", ["rounds=3"]
    run_pipeline(load_pipeline(loop, three), Selection(until="round2_pairs"))
    tell_kept(run / "pairs", False, "recall held")
    tell_kept(run / "round2_pairs", True, "recall fell by 4.0 [-6.0, -2.0]")
    said = describe(load_pipeline(loop, three))
    lines = {line.split()[0]: line.split() for line in said.splitlines() if not line.startswith("      ")}
    assert lines["round2_pairs"][2] == "complete"
    assert lines["round2_clean"][2:4] == lines["round3_judge"][2:4] == ["left", "out"]
    assert "round 2 ended the loop: round2_pairs kept nothing: recall fell by 4.0 [-6.0, -2.0]" in said
    capsys.readouterr()
    folders = run_pipeline(load_pipeline(loop, three))
    said = capsys.readouterr().out
    assert [folder.final.name for folder in folders] == [
        "world", "judge", "pairs", "clean", "round2_judge", "round2_pairs", "last",
    ]  # fmt: skip
    assert said.count("left out, round 2 ended the loop") == 4
    assert not (run / "round2_clean").exists() and not (run / "round3_judge").exists()
    # What stands behind the loop takes round 1, and of round 2 what it came to.
    last = json.loads((run / "last" / "manifest.json").read_text())["inputs"]
    assert last["data"]["path"] == f"{run}/clean/rows.parquet"
    assert [last[f"against_{n}"]["path"] for n in (1, 2)] == [
        f"{run}/judge/verdicts.jsonl",
        f"{run}/round2_judge/verdicts.jsonl",
    ]
    told = json.loads((run / "rounds.json").read_text())
    assert (told["asked"], told["kept"], told["ended"]["round"]) == (3, 1, 2)
    assert [(item["is_kept"], item["kept"]["step"]) for item in told["rounds"]] == [(True, 40), (False, 0)]
    assert told["rounds"][1]["stages"] == {"judge": "round2_judge", "pairs": "round2_pairs"}
    assert told["rounds"][0]["agreement"] == {"value": 1.0, "ci_low": 1.0, "ci_high": 1.0}


def refused(root: Path, kind: str) -> tuple[str, str]:
    """An override under which the pairs stage of round 2 raises, and what it says."""
    if kind == "too few":
        return "round2_pairs.min_pairs=9", "4 train pairs, at least 9 are wanted"
    numbers = {"value": 0.55, "ci_low": 0.5, "ci_high": 0.6}
    (root / "chance.json").write_text(json.dumps({"balanced_accuracy": numbers}))
    said = "the judge is too near chance to build pairs from: balanced accuracy 0.550 [0.500, 0.600], "
    return f"round2_pairs.agreement={root}/chance.json", f"{said}its lower bound must reach 0.6"


@pytest.mark.parametrize("kind", ["too few", "near chance"])
def test_a_later_round_that_has_nothing_to_train_on_ends_the_rounds(
    loop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    run, (override, said) = tmp_path / "run", refused(tmp_path, kind)
    asked = ["rounds=3", override]
    folders = run_pipeline(load_pipeline(loop, asked))
    assert [folder.final.name for folder in folders] == [
        "world", "judge", "pairs", "clean", "round2_judge", "last",
    ]  # fmt: skip
    why = f"round2_pairs: {said}"
    out = capsys.readouterr().out
    assert f"round 2 ends the rounds: {why}\n  their result is {run}/clean/rows.parquet (round 1's)" in out
    assert out.count(f"left out, round 2 ended the loop: {why}") == 4
    # What stands behind the loop reads what finished, and the last kept round's result.
    last = json.loads((run / "last" / "manifest.json").read_text())["inputs"]
    assert last["data"]["path"] == f"{run}/clean/rows.parquet"
    assert last["against_2"]["path"] == f"{run}/round2_judge/verdicts.jsonl" and "against_3" not in last
    told = json.loads((run / "rounds.json").read_text())
    assert (told["kept"], told["ended"]) == (1, {"round": 2, "stage": "pairs", "why": why})
    assert told["rounds"][1]["stages"] == {"judge": "round2_judge"}
    # Again: the same end out of the failed attempt's manifest, in a run, a dry run and a part of one.
    before = digests(run)
    states = {line.split()[0]: line for line in describe(load_pipeline(loop, asked)).splitlines()}
    assert " ended " in states["round2_pairs"] and " left out " in states["round2_clean"]
    assert " complete " in states["last"]
    run_pipeline(load_pipeline(loop, asked))
    assert "its last attempt ended the rounds, and would again: nothing to do" in capsys.readouterr().out
    run_pipeline(load_pipeline(loop, asked), Selection(only=["last"]))
    assert digests(run) == before
    # With a recipe that asks for less, the rounds go on.
    assert "left out" not in describe(load_pipeline(loop, ["rounds=3"]))
    folders = run_pipeline(load_pipeline(loop, ["rounds=3"]))
    assert len(folders) == 11 and json.loads((run / "rounds.json").read_text())["ended"] is None


def test_round_one_with_nothing_to_train_on_is_an_error(loop: Path, tmp_path: Path) -> None:
    asked = ["rounds=2", "pairs.min_pairs=9"]
    for _ in range(2):  # and stays one: the failed attempt decides nothing
        with pytest.raises(TooFewPairs, match="2 train pairs, at least 9 are wanted"):
            run_pipeline(load_pipeline(loop, asked))
    assert not (tmp_path / "run" / "last").exists()
    assert "left out" not in describe(load_pipeline(loop, asked))


def test_any_other_error_of_a_later_round_stops_the_run(loop: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(AlignError, match="cannot read the judge's agreement"):
        run_pipeline(load_pipeline(loop, ["rounds=2", f"round2_pairs.agreement={tmp_path}/broken.json"]))
    assert not (tmp_path / "run" / "rounds.json").exists()


def test_a_stale_word_of_a_keep_rule_ends_nothing(loop: Path, tmp_path: Path) -> None:
    """A folder that will be done anew may come to another decision: until then it decides nothing."""
    run_pipeline(load_pipeline(loop, ["rounds=2"]), Selection(until="pairs"))
    tell_kept(tmp_path / "run" / "pairs", True, "too few")
    changed = ["rounds=2", "pairs.min_gap=2"]
    said = describe(load_pipeline(loop, changed))
    assert "left out" not in said and "min_gap: 1.0 -> 2.0" in said
    folders = run_pipeline(load_pipeline(loop, changed))
    assert [folder.final.name for folder in folders][-3:] == ["round2_pairs", "round2_clean", "last"]


def test_nothing_kept_at_all_leaves_what_the_loop_started_from(loop: Path, tmp_path: Path) -> None:
    run_pipeline(load_pipeline(loop), Selection(until="pairs"))
    tell_kept(tmp_path / "run" / "pairs", True, "no gain")
    run_pipeline(load_pipeline(loop))
    inputs = json.loads((tmp_path / "run" / "last" / "manifest.json").read_text())["inputs"]
    assert inputs["data"]["path"] == f"{tmp_path}/start.parquet"
    assert not (tmp_path / "run" / "clean").exists()
    told = json.loads((tmp_path / "run" / "rounds.json").read_text())
    assert (told["kept"], told["ended"]["stage"]) == (0, "pairs")


def measured(run: Path, name: str, low: float, value: float, high: float) -> None:
    (run / name).mkdir(parents=True)
    numbers = {"value": value, "ci_low": low, "ci_high": high}
    (run / name / "agreement.json").write_text(json.dumps({"balanced_accuracy": numbers}))


@pytest.mark.parametrize(
    ("rule", "ends"),
    [
        ({}, None),
        ({"min_agreement": 0.69}, None),
        ({"min_agreement": 0.71}, 2),  # round 2's lower bound is 0.70; round 1 is the pairs stage's to refuse
        ({"max_agreement_drop": 0.05}, None),  # 0.85 is not below 0.90 - 0.05
        ({"max_agreement_drop": 0.04}, 2),
    ],
)
def test_policy_and_judge_drift_apart(tmp_path: Path, rule: dict[str, Any], ends: int | None) -> None:
    section = RoundSection(stages=["judge", "dpo"], start="base", result=f"{tmp_path}/dpo/model", **rule)
    loop = Loop(section, 2, tmp_path)
    measured(tmp_path, "judge", 0.5, 0.9, 0.95)
    measured(tmp_path, "round2_judge", 0.70, 0.8, 0.85)
    everything = dict.fromkeys(["judge", "dpo", "round2_judge", "round2_dpo"], "")
    found = read_end(loop, everything)
    assert (found.round if found else None) == ends
    if found:
        assert found.stage == "judge" and "0.800 [0.700, 0.850]" in found.why
    # A judge whose folder may be stale is not believed, nor is what follows it.
    assert read_end(loop, dict.fromkeys(["judge", "dpo"], "")) is None


def test_what_the_loop_makes_of_paths(tmp_path: Path) -> None:
    section = RoundSection(stages=["judge", "dpo"], start="base", result=f"{tmp_path}/dpo/model")
    loop = Loop(section, 3, tmp_path, Ended(3, "judge", "drift"))
    assert loop.kept == 2 and loop.checkpoint(0) == "base"
    assert loop.checkpoint(2) == f"{tmp_path}/round2_dpo/model"
    assert loop.came("judge", 3) and not loop.came("dpo", 3)
    from align.pipeline.rounds import Slot

    behind = Slot("report", "report", is_after=True)
    values = {
        "judge": f"{tmp_path}/judge",
        "all": [f"{tmp_path}/judge", f"{tmp_path}/dpo", f"{tmp_path}/other"],
        "score": {"dpo": f"{tmp_path}/dpo/model"},
    }
    assert loop.redirect(values, behind) == {
        "judge": f"{tmp_path}/round2_judge",
        "all": [
            *(f"{tmp_path}/{name}" for name in ("judge", "round2_judge", "round3_judge")),
            *(f"{tmp_path}/{name}" for name in ("dpo", "round2_dpo", "other")),
        ],
        "score": {"dpo": f"{tmp_path}/round2_dpo/model"},
    }
    never = Loop(section, 1, tmp_path, Ended(1, "judge", "no"))
    assert never.redirect({"a": f"{tmp_path}/dpo/log", "b": f"{tmp_path}/judge"}, behind) == {
        "b": f"{tmp_path}/judge"
    }
    assert never.redirect({"model": f"{tmp_path}/dpo/model"}, behind) == {"model": "base"}


def start(loop: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "align.cli", "run", str(loop), "rounds=3"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=dict(os.environ))


@pytest.mark.slow
def test_killed_at_many_moments_it_ends_with_the_same_digests(tmp_path: Path) -> None:
    calm, killed = write_loop(tmp_path / "calm" / "x"), write_loop(tmp_path / "killed" / "x")
    began = time.monotonic()
    assert start(calm).wait() == 0
    seconds = time.monotonic() - began
    moments = random.Random(0)
    for _ in range(8):
        process = start(killed)
        try:
            process.wait(moments.uniform(0.3, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
    process = start(killed)
    assert process.wait() == 0, process.stderr and process.stderr.read().decode()
    one, other = (digests(path.parent / "run") for path in (calm, killed))
    assert one == other and len(one) == 12
    assert not list((killed.parent / "run").glob("*.partial"))
