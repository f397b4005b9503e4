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
FILES = sorted(path for path in RECIPES.rglob("*.yaml") if path.parent not in (ACCELERATE, BASE))
STAGE_OF = {"eval": "generate", "keep_rated_4_5": "judge", "sft_qlora": "sft", "dpo_qlora": "dpo"}
NUM_METHODS = 8  # each for the embedded world and for a model of 7B; see test_method_recipes.py
MODELS = {
    "gemma3_12b",
    "gemma3_4b",
    "idefics2_8b",
    "idefics3_8b",
    "internvl3_2b",
    "internvl3_8b",
    "llava_1_5_7b",
    "llava_next_7b",
    "llava_onevision_7b",
    "paligemma2_3b",
    "qwen2_5_vl_3b",
    "qwen2_5_vl_7b",
    "qwen2_vl_2b",
    "qwen2_vl_7b",
    "qwen3_vl_2b",
    "qwen3_vl_4b",
    "qwen3_vl_8b",
    "smolvlm_2b",
}


def test_the_walk_finds_the_tree() -> None:
    others = {"quickstart", "evals", "data", "grammar_qwen2_5_0_5b", "vit_base", "methods"}
    assert {path.parent.name for path in FILES} == MODELS | others
    for model in MODELS:
        found = {path.stem for path in FILES if path.parent.name == model}
        assert found >= {"sft", "dpo", "sft_qlora", "dpo_qlora"}, model
    assert len(FILES) == 20 + 4 * len(MODELS) - 4 + 2 * NUM_METHODS


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
