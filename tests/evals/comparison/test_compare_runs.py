"""Runs side by side: paired where the same was asked, unpaired or refused where it was not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from align.cli import main
from align.errors import AlignError
from align.rows.schema import Score
from evals.comparison.metric_line import MetricLine
from evals.comparison.runs import read_runs
from evals.comparison.runs_side_by_side import compare_runs, whole_in_all
from tests.evals.report.report_data import THREE, write_scores


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs on the same world: `a` with base and sft, `b` with dpo alone."""
    root = tmp_path_factory.mktemp("runs")
    write_scores(root / "a", {name: THREE[name] for name in ("base", "sft")}, num_images=16)
    write_scores(root / "b", {"dpo": THREE["dpo"]}, num_images=16)
    return root


@pytest.fixture
def copy(runs: Path, tmp_path: Path) -> Path:
    """The runs again, to be changed; the answers' folders are named by the copies' recipes."""
    shutil.copytree(runs, tmp_path / "runs")
    for recipe in (tmp_path / "runs").glob("?/score/recipe.yaml"):
        recipe.write_text(recipe.read_text().replace(str(runs), str(tmp_path / "runs")))
    return tmp_path / "runs"


def change_json(path: Path, change: Any) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def line_of(lines: Sequence[MetricLine], task: str, metric: str) -> MetricLine:
    return next(line for line in lines if (line.task, line.metric) == (task, metric))


def test_paired_runs_equal_one_scoring_of_both(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same answers scored together and in two runs differ by as much, with the same n and clusters."""
    together = write_scores(tmp_path / "c", {name: THREE[name] for name in ("sft", "dpo")}, num_images=16)
    expected = json.loads((together / "metrics.json").read_text())
    words = ["report", "--compare", str(runs / "a"), str(runs / "b"), "--out", str(tmp_path / "out")]
    assert main([*words, "--resamples", "500"]) == 0
    found = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    assert found["checkpoints"] == ["a", "b"] and "not_comparable" not in found
    for line in expected:
        same = next(
            other
            for other in found["metrics"]
            if all(other[key] == line[key] for key in ("task", "metric", "split"))
        )
        for key in ("delta", "ci_low", "ci_high", "p", "n", "clusters", "p_holm"):
            assert same[key] == line[key], (line["task"], line["metric"], key)
        assert [*same["values"].values()] == [line["values"]["sft"], line["values"]["dpo"]]
    assert found["verdict"]["headline"] in capsys.readouterr().out
    assert main(words) == 0  # again into the same folder


def test_what_differs_is_said_and_not_compared(copy: Path) -> None:
    change_json(
        copy / "b" / "score" / "manifest.json",
        lambda manifest: manifest["inputs"]["tasks.chair.instances"].update(digest="f" * 64),
    )
    change_json(
        copy / "b" / "score" / "tasks.json", lambda cards: cards["vqa"].update(prompt="Say: {question}")
    )
    found = compare_runs(read_runs([str(copy / "a"), str(copy / "b")]), resamples=200)
    assert list(found.apart) == ["chair", "vqa"]
    assert found.apart["chair"][0].startswith("other data: instances has sha256 ")
    assert found.apart["vqa"][0].startswith("another prompt: ") and "Say: {question}" in found.apart["vqa"][0]
    assert line_of(found.metrics, "chair", "chair_i").delta is None
    assert line_of(found.metrics, "chair", "chair_i").values["b"] is not None
    assert line_of(found.metrics, "pope", "f1").delta is not None


def test_other_sampling_is_said(copy: Path) -> None:
    recipe = copy / "b" / "generate_dpo" / "recipe.yaml"
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(recipe), {"sampling": {"temperature": 0.7}}), recipe)
    found = compare_runs(read_runs([str(copy / "a"), str(copy / "b")]), resamples=200)
    assert found.apart["pope"] == ["other sampling: temperature 0.0 / 0.7"]
    assert all(line.delta is None for line in found.metrics)


def test_only_whole_clusters_are_paired(copy: Path) -> None:
    """Of two questions about a picture that one run lacks, neither counts; the remark tells how many do."""
    rows = copy / "b" / "score" / "rows" / "dpo" / "vqa.jsonl"
    lines = rows.read_text().splitlines()
    gone = json.loads(lines[0])["cluster"]
    rows.write_text("\n".join(lines[1:]) + "\n")
    found = compare_runs(read_runs([str(copy / "a"), str(copy / "b")]), resamples=200)
    left = sum(json.loads(line)["cluster"] != gone for line in lines)
    assert line_of(found.metrics, "vqa", "accuracy").n == left
    remark = f"vqa: on the {left:,} answers that all runs have, of {len(lines)}, {len(lines) - 1}"
    assert found.remarks == [remark]


def test_without_rows_intervals_are_unpaired(copy: Path) -> None:
    """A report alone is enough: the difference's error is that of two independent values."""
    for name in ("a", "b"):
        assert main(["report", f"run_dir={copy / name}", f"scores={copy / name / 'score'}"]) == 0
        shutil.rmtree(copy / name / "score")
    found = compare_runs(read_runs([str(copy / "a"), str(copy / "b")]), resamples=200)
    assert not found.apart and len(found.remarks) == 3
    line = line_of(found.metrics, "chair", "chair_s")
    (low, high), (other_low, other_high) = line.ci["a"], line.ci["b"]
    half = ((high - low) ** 2 + (other_high - other_low) ** 2) ** 0.5 / 2
    a, b = line.values.values()
    assert None not in (a, b, line.delta, line.ci_high)
    assert line.delta == pytest.approx((b or 0) - (a or 0), abs=2e-6)
    assert (line.ci_high or 0) - (line.delta or 0) == pytest.approx(half, abs=2e-6) and not line.paired


def test_names_and_checkpoints(runs: Path) -> None:
    one, two = read_runs([f"{runs / 'a'}@base", str(runs / "a")])
    assert (one.name, two.name, one.checkpoint, two.checkpoint) == ("a-base", "a", "base", "sft")
    with pytest.raises(AlignError, match="no checkpoint 'spt'"):
        read_runs([f"{runs / 'a'}@spt"])
    with pytest.raises(AlignError, match="the same run twice"):
        read_runs([str(runs / "a"), str(runs / "a" / "score")])
    with pytest.raises(AlignError, match="no scores in"):
        read_runs([str(runs)])


def test_clusters_by_hand() -> None:
    def row(cluster: str, sample: str) -> Score:
        return Score(task="t", sample_id=sample, cluster=cluster, values={})

    one = [row("x", "1"), row("x", "2"), row("y", "3")]
    two = [row("y", "3"), row("x", "1"), row("z", "4")]
    found = whole_in_all([one, two])
    assert found is not None and [[item.sample_id for item in side] for side in found] == [["3"], ["3"]]
    assert whole_in_all([one[:2], two[1:2]]) is None
