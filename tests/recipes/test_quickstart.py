"""The quickstart pipeline at smoke size: every stage for real, vLLM included, from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository import REPO

SMOKE = [
    line
    for line in (REPO / "benchmarks" / "quickstart_smoke.txt").read_text().splitlines()
    if not line.startswith("#")
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
    return subprocess.run([*command, *SMOKE], cwd=REPO, capture_output=True, text=True, timeout=1500)


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
