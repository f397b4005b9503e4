"""Preferences in both orders: what two verdicts come to, length, a judge that only likes the first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.config.recipe import validate
from align.errors import AlignError
from evals import score
from evals.comparison.preferences import win_rate_at_equal_length
from evals.report.stage import Recipe, run
from tests.chat_server import ChatServer
from tests.evals.report.report_data import THREE, write_scores


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers of sft and dpo to a small world."""
    root = tmp_path_factory.mktemp("pairwise")
    write_scores(root, {name: THREE[name] for name in ("sft", "dpo")}, num_images=16)
    return root


def go(scored: Path, out: Path, url: str, **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The summary of the captions' pairs, and the pairs."""
    values = {
        "run_dir": str(out),
        "checkpoints": {name: str(scored / f"generate_{name}") for name in ("sft", "dpo")},
        "resamples": 200,
        "pairwise": {"judge": {"endpoint": url}, "tasks": ["chair"], **more},
    }
    folder = score.run(validate(score.Recipe, values, where="test")).final
    [line] = json.loads((folder / "pairwise.json").read_text())
    return line, [json.loads(row) for row in (folder / "pairwise" / "chair.jsonl").read_text().splitlines()]


def shorter(question: str) -> str:
    """A judge that prefers the shorter answer, wherever it stands."""
    first = question.split("First answer: ")[1].split("\n\nSecond answer: ")[0]
    second = question.split("Second answer: ")[1].split("\n\nReply")[0]
    return "tie" if len(first) == len(second) else "First." if len(first) < len(second) else "second"


def test_a_fair_judge_counts_in_both_orders(scored: Path, tmp_path: Path) -> None:
    with ChatServer(shorter) as server:
        line, pairs = go(scored, tmp_path, server.url)
        asked = server.answered.total()
    assert asked == 2 * sum(pair["forth"] is not None for pair in pairs)
    for pair in pairs:
        outcome = "tie" if pair["words"] == 0 else "win" if pair["words"] < 0 else "loss"
        if pair["forth"] not in (None, "tie"):
            assert pair["outcome"] == outcome or pair["words"] == 0
    assert line["n"] == 16 == line["wins"] + line["ties"] + line["losses"]
    assert line["win_rate"] == pytest.approx(100 * (line["wins"] + line["ties"] / 2) / 16)
    assert (line["consistency"], line["unscored"]) == (100.0, 0)
    assert line["ci"][0] <= line["win_rate"] <= line["ci"][1]
    final = run(Recipe(run_dir=tmp_path, scores=tmp_path / "score")).final
    assert "DPO against SFT, as a judge prefers" in (final / "report.html").read_text()
    assert json.loads((final / "report.json").read_text())["pairwise"] == [line]


def test_a_judge_that_likes_what_comes_first_decides_nothing(scored: Path, tmp_path: Path) -> None:
    with ChatServer(lambda _: "first") as server:
        line, _ = go(scored, tmp_path, server.url, show_pictures=False)
    assert (line["wins"], line["losses"], line["win_rate"]) == (0, 0, 50.0)
    assert (line["consistency"], line["prefers_first"]) == (0.0, 100.0)


def test_what_is_no_verdict_is_unscored(scored: Path, tmp_path: Path) -> None:
    with ChatServer(lambda _: "first or second, who knows") as server:
        line, pairs = go(scored, tmp_path, server.url)
    differ = sum(bool(pair["judgements"]) for pair in pairs)
    assert line["unscored"] == differ > 0 and line["n"] == 16 - differ
    assert line["judge"]["unscored_reasons"] == {"no verdict in the judge's reply": 2 * differ}


def test_a_judge_needs_two_checkpoints_and_known_tasks(scored: Path, tmp_path: Path) -> None:
    with pytest.raises(AlignError, match="no task 'chare'"):
        go(scored, tmp_path, "http://127.0.0.1:1/v1", tasks=["chare"])
    values = {
        "run_dir": str(tmp_path),
        "checkpoints": {"dpo": str(scored / "generate_dpo")},
        "pairwise": {"judge": {"endpoint": "http://127.0.0.1:1/v1"}, "tasks": ["chair"]},
    }
    with pytest.raises(AlignError, match="pairwise needs two checkpoints"):
        validate(score.Recipe, values, where="test")


def test_length_control() -> None:
    """Wins that are all length come to a half; wins without any length stay what they are."""
    rng = np.random.default_rng(0)
    words = rng.normal(size=4000) * 20
    by_length = (rng.random(4000) < 1 / (1 + np.exp(-2 * np.tanh(words / words.std())))).astype(float)
    assert win_rate_at_equal_length(by_length, words) == pytest.approx(0.5, abs=0.03)
    steady = (np.arange(4000) % 4 > 0).astype(float)
    assert win_rate_at_equal_length(steady, np.zeros(4000)) == pytest.approx(0.75, abs=0.001)
