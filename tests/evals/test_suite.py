"""`align eval`: the stages of an evaluation from one recipe, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from align.config.recipe import validate
from align.digest import MANIFEST
from align.errors import RecipeError
from evals.generate import Recipe as GenerateRecipe
from evals.suite import Recipe, run, steps
from tests.chat_server import ChatServer


def recipe(root: Path, url: str, names: tuple[str, ...], **options: Any) -> Recipe:
    Image.new("RGB", (8, 8), (200, 0, 0)).save(root / "1.png")
    questions = [
        {"id": str(k), "image": "1.png", "question": f"Is it {k}?", "answer": "yes" if k % 2 else "no"}
        for k in range(12)
    ]
    (root / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    for name in names:
        (root / name).mkdir(exist_ok=True)
        (root / name / "config.json").write_text(json.dumps({"name": name}))
    values = {
        "run_dir": str(root / "run"),
        "checkpoints": {name: str(root / name) for name in names},
        "serve": {"endpoint": url},
        "tasks": {
            "mine": {
                "type": "custom",
                "path": str(root / "q.jsonl"),
                "image_root": str(root),
                "metric": "yes_no",
            }
        },
        "score": {"resamples": 200},
    }
    return validate(Recipe, values | options, where="test")


def test_one_recipe_generates_scores_and_reports(tmp_path: Path) -> None:
    with ChatServer(lambda question: "no" if "10" in question else "yes") as server:
        first = recipe(tmp_path, server.url, ("base", "sft"))
        folder = run(first)
        assert folder.final == tmp_path / "run" / "eval" / "report"
        assert "70.6" in (folder.final / "report.md").read_text()
        assert server.answered.total() == 24
        run(first)
        assert server.answered.total() == 24
        run(recipe(tmp_path, server.url, ("base", "sft", "dpo")))  # one more: the others stay as they are
        assert server.answered.total() == 36
    lines = json.loads((tmp_path / "run" / "eval" / "score" / "metrics.json").read_text())
    f1 = next(line for line in lines if line["metric"] == "f1")
    assert f1["values"]["base"] == f1["values"]["dpo"] == pytest.approx(100 * 12 / 17, abs=1e-4)


def test_one_checkpoint_has_a_report_of_its_own(tmp_path: Path) -> None:
    with ChatServer(lambda _: "yes") as server:
        folder = run(recipe(tmp_path, server.url, ("mine",)))
    assert folder.final.name == "report"
    assert folder.manifest()["metrics"]["status"] == "single"
    score = json.loads((folder.final.parent / "score" / MANIFEST).read_text())
    assert score["metrics"] == {"mine/test/f1": pytest.approx(200 / 3, abs=1e-4)}


def test_stages_share_the_recipes_keys(tmp_path: Path) -> None:
    found = steps(recipe(tmp_path, "http://localhost:1/v1", ("base", "dpo"), seed=3, concurrency=7))
    assert [step.recipe.name for step in found] == ["generate_base", "generate_dpo", "score", "report"]
    assert {step.recipe.seed for step in found[:3]} == {3}
    assert [step.recipe.model_dump()["concurrency"] for step in found[:2]] == [7, 7]


def test_what_is_not_said_is_as_generate_has_it(tmp_path: Path) -> None:
    """One source of defaults: how a checkpoint is asked does not depend on the command."""
    asked = recipe(tmp_path, "http://localhost:1/v1", ("base",))
    values = {"run_dir": asked.run_dir / "eval", "name": "generate_base", "model": asked.checkpoints["base"]}
    alone = validate(GenerateRecipe, {**values, "tasks": asked.tasks, "serve": asked.serve}, where="test")
    assert steps(asked)[0].recipe == alone


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"score": {"resample": 5}}, "resamples"),
        ({"serve": {"max_num_seq": 5}}, "serve.max_num_seq"),
        ({"engine": "online"}, "engine"),
        ({"tasks": {"pope": {"type": "popo"}}}, "unknown task type"),
        ({"report": {"titel": "x"}}, "titel"),
    ],
)
def test_a_wrong_key_of_any_stage_stops_at_once(options: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=named):
        recipe(tmp_path, "http://localhost:1/v1", ("base", "dpo"), **options)
