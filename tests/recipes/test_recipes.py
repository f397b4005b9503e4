"""Every recipe in the tree loads and validates; none may drift."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.config.recipe import load_recipe
from align.pipeline import load_pipeline
from align.pipeline.stages import load_stage, stage_names
from tests.repository import REPO

RECIPES = REPO / "recipes"
ACCELERATE = RECIPES / "accelerate"  # launcher configs, see test_accelerate_configs.py
BASE = RECIPES / "base"  # what other recipes lie over
FOR_ANY = (RECIPES / "models.yaml", RECIPES / "pipeline.yaml")  # see test_any_model.py
STAGE_OF = {
    "eval": "generate",
    "keep_rated_4_5": "judge",
    "claims_of_any_kind": "judge",
    "sft_qlora": "sft",
    "dpo_qlora": "dpo",
}
FILES = sorted(
    path for path in RECIPES.rglob("*.yaml") if path.parent not in (ACCELERATE, BASE) and path not in FOR_ANY
)
NUM_METHODS = 8  # each for the embedded world and for a model of 7B; see test_method_recipes.py
EXAMPLES = {"llava_1_5_7b", "qwen2_5_vl_7b", "qwen3_vl_8b"}  # the others are entries of models.yaml


def test_the_walk_finds_the_tree() -> None:
    others = {"quickstart", "evals", "data", "grammar_qwen2_5_0_5b", "vit_base", "methods"}
    assert {path.parent.name for path in FILES} == EXAMPLES | others
    for model in EXAMPLES:
        found = {path.stem for path in FILES if path.parent.name == model}
        assert found >= {"sft", "dpo", "eval", "pipeline"}, model
    assert len(FILES) == 29 + 2 * NUM_METHODS


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RECIPES)))
def test_recipe_loads_and_validates(path: Path) -> None:
    if path.stem == "pipeline":
        names = [step.recipe.name for step in load_pipeline(path)]
        assert names[-2:] == ["score", "report"] and {"sft", "dpo", "sample", "judge", "pairs"} <= set(names)
        return
    if path.parent.name == "methods":
        assert "dpo" in load_pipeline(path).names
        return
    if path.stem == "best":  # a pipeline of its own, after the quickstart's
        assert [step.recipe.name for step in load_pipeline(path)] == ["best_sample", "best"]
        return
    kind = "eval" if path.parent.name == "evals" else STAGE_OF.get(path.stem, path.stem)
    assert kind in stage_names(), f"{path} is named after no stage"
    recipe = load_recipe(load_stage(kind).recipe, path)
    assert recipe.run_dir == Path("runs") / path.parent.name
    assert recipe.stage == kind or kind not in ("sft", "dpo"), "`align plan` must not have to guess"
