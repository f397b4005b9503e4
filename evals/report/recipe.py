"""The recipe of `align report`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from align.config.recipe import StageRecipe, Strict
from evals.report.margins import Margins


class Training(Strict):
    """The training stages whose curves are shown."""

    sft: Path | None = Field(default=None, description="folder of the SFT stage")
    dpo: Path | None = Field(default=None, description="folder of the DPO stage")


class Recipe(StageRecipe):
    """What goes into the report."""

    shown_keys: ClassVar[frozenset[str]] = frozenset({"judge", "pairs", "training", "stages"})

    name: str = Field(default="report", description="the stage's folder inside run_dir")
    scores: Path = Field(description="folder of the score stage")
    judge: Path | None = Field(
        default=None, description="folder of the judge stage, for its agreement with the truth"
    )
    pairs: Path | None = Field(
        default=None, description="folder of the pairs stage, for length gaps and agreement"
    )
    training: Training = Field(
        default_factory=Training, description="folders of the training stages, for their curves"
    )
    rounds: Path | None = Field(
        default=None, description="rounds.json of a pipeline: what each round of training came to"
    )
    stages: list[Path] = Field(
        default=[], description="finished stage folders to name in the provenance section"
    )
    image_root: Path | None = Field(
        default=None, description="folder of the pictures, where the scores do not name one"
    )
    title: str = Field(default="Hallucination report", description="heading of the page")
    num_examples: int = Field(default=12, ge=0, le=200, description="examples with pictures")
    margins: Margins = Field(
        default_factory=Margins, description="losses that still count as kept in the verdict's guards"
    )
