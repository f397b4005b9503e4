"""The quickstart pipeline at smoke size: every stage for real, vLLM included, from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SMALL_EVAL = ("tasks.chair.num_images=12", "tasks.pope.num_images=6", "tasks.vqa.num_questions=24")
SMOKE = [
    "scenes.train=48",
    "scenes.dev=24",
    "scenes.test=24",
    "scenes.unseen=8",
    "instructions.prompts.train=40",
    "instructions.prompts.dev=24",
    "sft.trainer.max_steps=4",
    "sft.trainer.per_device_train_batch_size=8",
    "sample.n=6",
    "pairs.min_balanced_accuracy=0.5",
    "pairs.length_tolerance=2.0",
    "dpo.trainer.max_steps=3",
    *(
        f"{name}.dev.{key}"
        for name in ("sft", "dpo")
        for key in ("num_pictures=8", "questions.num_questions=8")
    ),
    *(f"{name}.keep=null" for name in ("sft", "dpo")),  # so few steps gain nothing that a rule would keep
    "dpo.trainer.per_device_train_batch_size=4",
    "score.resamples=200",
    *(f"generate_{name}.{key}" for name in ("base", "sft", "dpo") for key in SMALL_EVAL),
]
METRIC_KEYS = "task metric split higher_is_better values delta ci_low ci_high p n clusters"


def align_run(run_dir: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "align.cli",
        "run",
        "recipes/quickstart/pipeline.yaml",
        f"run_dir={run_dir}",
    ]
    return subprocess.run([*command, *SMOKE], cwd=ROOT, capture_output=True, text=True, timeout=1500)


@pytest.mark.vllm
@pytest.mark.slow
def test_the_whole_road_runs_and_redoes_nothing(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    first = align_run(run_dir)
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    report = json.loads((run_dir / "report" / "report.json").read_text())
    assert {"metrics", "health", "verdict", "provenance"} <= set(report)
    for row in report["metrics"]:
        assert set(METRIC_KEYS.split()) <= set(row)
        if row["delta"] is not None:
            assert row["delta"] == pytest.approx(row["values"]["dpo"] - row["values"]["sft"], abs=0.02)
    assert {"pope", "chair", "vqa"} <= {row["task"] for row in report["metrics"]}
    assert "<html" in (run_dir / "report" / "report.html").read_text()
    for stage in ("sft_merged", "dpo_merged"):
        metrics = json.loads((run_dir / stage / "manifest.json").read_text())["metrics"]
        assert "agreement" in json.dumps(metrics)
    assert not list(run_dir.glob("*.partial"))

    again = align_run(run_dir)
    assert again.returncode == 0
    assert again.stdout.count("nothing to do") == 14
