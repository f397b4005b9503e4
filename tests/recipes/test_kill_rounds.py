"""The benchmark that kills a pipeline: whom it kills, when, and that it sees what is not the same."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from align.digest import digest_file
from benchmarks.kill_rounds import STARTING, Attempt, Moment, draw_moments, main
from benchmarks.process_tree import Process, beneath, crash, seconds_until_gone
from benchmarks.run_differences import differences, progress
from tests.align.pipeline.loop_pipeline import write_loop

WITH_SERVER = """
import subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
guard = "import subprocess, time; subprocess.Popen(%r); time.sleep(60)" % sleep
subprocess.Popen([sys.executable, "-c", guard], start_new_session=True)
print("[2/3] sample: eight descriptions", flush=True)
time.sleep(60)
"""
"""A parent, a guard in a session of its own, and a server beneath the guard."""


def started(log: Path) -> tuple[Attempt, list[Process]]:
    attempt = Attempt([sys.executable, "-c", WITH_SERVER], log)
    assert attempt.reaches(Moment("sample", 0.0)) and attempt.stage == "sample"
    deadline = time.monotonic() + 30
    while len(found := beneath(attempt.process.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    return attempt, found


def test_a_crash_takes_servers_in_sessions_of_their_own_along(tmp_path: Path) -> None:
    attempt, below = started(tmp_path / "log")
    assert len(below) == 2 and {process.session for process in below} == {below[0].pid}
    assert crash(attempt.process.pid) == 3
    assert attempt.process.wait(10) == -9
    assert seconds_until_gone(below, 10) is not None


def test_a_killed_parent_leaves_orphans_that_are_seen(tmp_path: Path) -> None:
    attempt, below = started(tmp_path / "log")
    attempt.process.kill()
    attempt.process.wait(10)
    assert all(process.is_alive() for process in below) and seconds_until_gone(below, 0.2) is None
    for process in below:
        subprocess.run(["kill", "-9", str(process.pid)], check=True)
    assert seconds_until_gone(below, 10) is not None


def test_a_failed_start_is_told(tmp_path: Path) -> None:
    attempt = Attempt([sys.executable, "-c", "raise SystemExit('no such stage')"], tmp_path / "log")
    assert not attempt.reaches(Moment("sample", 0.0))
    with pytest.raises(SystemExit, match=r"no such stage[\s\S]*exit code 1"):
        attempt.finish()


def test_moments_are_seconds_into_stages_spread_over_the_wall_time() -> None:
    timeline = [(STARTING, 0.0), ("sft", 2.0), ("dpo", 12.0), ("", 100.0)]
    moments = draw_moments(timeline, 500, seed=0)
    begins = dict(timeline)
    seconds = [begins[moment.stage] + moment.seconds for moment in moments]
    assert seconds == sorted(seconds) and seconds[0] >= 0 and seconds[-1] <= 100
    assert all(moment.seconds <= 10 for moment in moments if moment.stage == "sft")
    # 88 of 100 seconds: 440 of 500, with a standard deviation of 7.3.
    assert 410 < sum(moment.stage == "dpo" for moment in moments) < 470
    assert draw_moments(timeline, 5, seed=1) == draw_moments(timeline, 5, seed=1) != moments[:5]


def run_folder(root: Path, lines: str, metric: float) -> Path:
    texts = {"sample": {"candidates.jsonl": lines}, "report": {"report.html": str(root)}}
    texts["report"]["report.json"] = json.dumps({"metrics": [{"metric": "chair_s", "dpo": metric}]})
    for stage, files in texts.items():
        (root / stage).mkdir(parents=True)
        for name, text in files.items():
            (root / stage / name).write_text(text)
        outputs = {name: {"sha256": digest_file(root / stage / name)} for name in files}
        record = {"status": "complete", "outputs": outputs}
        (root / stage / "manifest.json").write_text(json.dumps(record))
    return root


def test_differences_are_named_and_pages_are_left_out(tmp_path: Path) -> None:
    one = run_folder(tmp_path / "one", "a\nb\nc\n", 20.0)
    assert differences(one, run_folder(tmp_path / "same", "a\nb\nc\n", 20.0)) == []
    other = run_folder(tmp_path / "other", "a\nc\nd\n", 20.5)
    (other / "round2_dpo.partial").mkdir()
    (other / "rounds.json").write_text("{}")
    assert differences(one, other) == [
        "report/report.json: 1 of 1 lines differ",
        "sample/candidates.jsonl: 1 of 3 lines differ",
        "rounds.json differs",
        "unfinished folders: {} and {'round2_dpo.partial': ''}",
        "the report's metrics differ",
    ]


def test_progress_is_what_a_restart_finds(tmp_path: Path) -> None:
    run = run_folder(tmp_path, "a\n", 1.0)
    assert progress(run, "dpo") == "2 stages"
    (run / "dpo.partial" / "scratch" / "checkpoints" / "checkpoint-25").mkdir(parents=True)
    (run / "dpo.partial" / "scratch" / "checkpoints" / "checkpoint-125").mkdir()
    assert progress(run, "dpo") == "2 stages, checkpoint 125"
    (run / "judge.partial").mkdir()
    assert progress(run, "judge") == "2 stages, an attempt"
    (run / "judge.partial" / "answers.jsonl").write_text('{"a": 1}\n{"b": 2}\n{"cut')
    assert progress(run, "judge") == "2 stages, 2 lines"


@pytest.mark.slow
def test_a_pipeline_of_cheap_stages_comes_to_the_same_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = str(write_loop(tmp_path / "x"))
    arguments = tmp_path / "arguments.txt"
    arguments.write_text("# rounds that end\nrounds=3\nround3_pairs.min_pairs=9  # has fewer\n")
    out = tmp_path / "out"
    assert main([pipeline, f"@{arguments}", "--kills", "3", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "no difference in" in said and "of 9 stages" in said and "parent alone" in said
    # The calm run is used again, and a file that is not the same is found.
    (out / "undisturbed" / "rounds.json").write_text("{}")
    assert main([pipeline, f"@{arguments}", "--kills", "0", "--out", str(out)]) == 1
    assert "rounds.json differs" in capsys.readouterr().out
