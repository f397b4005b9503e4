"""Draw the embedded world: COCO-format scenes whose truth is known exactly.

Writes images/<split>/ and annotations/ (instances, captions, VQAv2-format questions) for the splits
train, dev, test and test_unseen_style (an art style that no training ever sees). About 1.5 ms a scene.
"""

from __future__ import annotations

import shutil

from pydantic import Field

from align.config.recipe import StageRecipe
from align.progress import Bar
from align.run.folder import RunFolder
from align.run.stage import Done, run_stage


class Recipe(StageRecipe):
    """How many scenes of each split to draw."""

    name: str = "scenes"
    train: int = Field(
        default=2000, ge=1, description="images to make instructions and preference pairs from"
    )
    dev: int = Field(default=200, ge=1, description="images to measure the judge on")
    test: int = Field(default=500, ge=1, description="images to evaluate on")
    unseen: int = Field(default=200, ge=0, description="test images in the held-out art style")


def run(recipe: Recipe) -> RunFolder:
    """Write the world; byte-equal for the same recipe.

    Raises:
        AlignError: the disk is full.
    """
    return run_stage(recipe, {}, lambda folder: _work(recipe, folder))


def _work(recipe: Recipe, folder: RunFolder) -> Done:
    from data_tools.scenes.coco_files import PARTS, write_world

    total = recipe.train + recipe.dev + recipe.test + recipe.unseen
    with Bar("scenes", total, "images") as bar:
        for part in PARTS:  # of a killed attempt: drawing takes seconds, so it is drawn anew
            shutil.rmtree(folder.work / part, ignore_errors=True)
        write_world(
            folder.work,
            train=recipe.train,
            dev=recipe.dev,
            test=recipe.test,
            unseen=recipe.unseen,
            seed=recipe.seed,
            progress=lambda done, _total: bar.step(done - bar.done),
        )
    return Done({"images": total}, "align instructions RECIPE")
