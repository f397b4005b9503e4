"""Every recipe in the tree loads and validates; none may drift."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.config import load_recipe
from align.pipeline import load_pipeline
from align.stages import load_stage, stage_names

RECIPES = Path(__file__).parent.parent / "recipes"
ACCELERATE = RECIPES / "accelerate"  # launcher configs, see test_accelerate_configs.py
FILES = sorted(path for path in RECIPES.rglob("*.yaml") if path.parent != ACCELERATE)
STAGE_OF = {"eval": "generate", "keep_rated_4_5": "judge"}


def test_the_walk_finds_the_tree() -> None:
    assert {path.parent.name for path in FILES} == {
        "quickstart",
        "llava_1_5_7b",
        "qwen2_5_vl_7b",
        "evals",
        "data",
    }
    assert len(FILES) == 16


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RECIPES)))
def test_recipe_loads_and_validates(path: Path) -> None:
    if path.stem == "pipeline":
        names = [step.recipe.name for step in load_pipeline(path)]
        assert names[-2:] == ["score", "report"] and {"sft", "dpo", "sample", "judge", "pairs"} <= set(names)
        return
    kind = "eval" if path.parent.name == "evals" else STAGE_OF.get(path.stem, path.stem)
    assert kind in stage_names(), f"{path} is named after no stage"
    recipe = load_recipe(load_stage(kind).recipe, path)
    assert recipe.run_dir == Path("runs") / path.parent.name
