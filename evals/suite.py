"""Generate, score and report for several checkpoints and tasks in one go, one server start a checkpoint.

Everything is made of the stages that `align generate`, `align score` and `align report` run; they write to
`run_dir/name/`, a folder each. Run it again after a kill, or with one more checkpoint: what is done stays
done.

  align eval recipes/evals/hallucination.yaml checkpoints.dpo=runs/mine/dpo_merged/checkpoint
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from align.config.model_ref import ModelRef
from align.config.recipe import validate
from align.pipeline import Pipeline, Step, run_pipeline
from align.pipeline.stages import load_stage
from align.run.folder import RunFolder
from evals.generate import Asking


class Recipe(Asking):
    """What to ask whom. How is `align generate`'s own; keys of the other stages go into their sections,
    under the names that they have there."""

    name: str = Field(default="eval", description="folder inside run_dir")
    checkpoints: dict[str, ModelRef] = Field(
        min_length=1,
        description="name -> merged checkpoint folder or hub id, in training order; each is compared with "
        "the one before",
    )
    score: dict[str, Any] = Field(default={}, description="keys of `align score`, but for its checkpoints")
    report: dict[str, Any] = Field(default={}, description="keys of `align report`, but for its scores")

    @model_validator(mode="after")
    def _stages_agree(self) -> Recipe:
        steps(self)
        return self


def run(recipe: Recipe) -> RunFolder:
    """Run the stages in order; the folder of the last one."""
    return run_pipeline(Pipeline(steps(recipe)))[-1]


def steps(recipe: Recipe) -> list[Step]:
    """The stages that the recipe asks for, each with its own checked recipe.

    Raises:
        RecipeError: a key that a stage does not have, or a value that it does not take.
    """
    folder = recipe.run_dir / recipe.name
    shared = recipe.model_dump(include={"seed", *Asking.model_fields} - {"run_dir", "name", "stage"})
    found = [
        _step("generate", f"generate_{name}", recipe, shared | {"model": model}, f"{name}: {model.name}")
        for name, model in recipe.checkpoints.items()
    ]
    scored = {name: str(folder / f"generate_{name}") for name in recipe.checkpoints}
    found.append(_step("score", "score", recipe, recipe.score | {"checkpoints": scored, "seed": recipe.seed}))
    stages = {"scores": str(folder / "score"), "stages": [*scored.values(), str(folder / "score")]}
    found.append(_step("report", "report", recipe, stages | recipe.report))
    return found


def _step(kind: str, name: str, recipe: Recipe, values: Mapping[str, Any], about: str = "") -> Step:
    stage = load_stage(kind)
    where = f"the {kind} stage of this evaluation"
    checked = validate(
        stage.recipe, {**values, "run_dir": recipe.run_dir / recipe.name, "name": name}, where=where
    )
    return Step(stage, checked, 0.0, about)
