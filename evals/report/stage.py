"""Write the hallucination report: a page for reading, Markdown for a pull request, JSON for programs.

Reads a finished score folder (one checkpoint or more) and, where they are given, what the judge, pairs
and training stages left. Writes `report.html`, one file that opens offline, `report.md` and `report.json`.
It starts with a verdict in plain words, which says so when less hallucination is only less text.

  align report run_dir=runs/quickstart scores=runs/quickstart/score num_examples=24

Checkpoints of several runs side by side, with what cannot be compared and why:

  align report --compare runs/a runs/b@sft [--out DIR]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from align.config import StageRecipe, Strict
from align.progress import say
from align.run import RunFolder
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


def run(recipe: Recipe) -> RunFolder:
    """Render the three files.

    Raises:
        AlignError: a folder is missing or unfinished.
    """
    folder = RunFolder.open(recipe, inputs=_inputs(recipe))
    if folder.is_complete:
        return folder
    with folder:
        from evals.report.build import build_report

        report = build_report(recipe)
        for name, text in report.files.items():
            # Lone surrogates cannot be written; the page's own texts are clean, paths and ids may not be.
            (folder.work / name).write_bytes(text.encode("utf-8", "replace"))
        say(f"  {report.verdict.headline}\n  {report.verdict.summary}")
        page = recipe.stage_dir / "report.html"
        folder.complete(
            metrics={
                "status": report.verdict.status,
                "gates": dict(report.verdict.gates),
                "num_examples": report.num_examples,
            },
            next_step=f"open {page} in a browser",
        )
    return folder


def direct(words: Sequence[str]) -> int | None:
    """`align report --compare RUN RUN`; None where the words name a recipe."""
    if "--compare" not in words:
        return None
    from evals.report.compare import main

    def report(out: Path, scores: Path, title: str) -> RunFolder:
        return run(Recipe(run_dir=out, scores=scores, title=title))

    return main(words, report)


def _inputs(recipe: Recipe) -> dict[str, str | Path]:
    optional = {
        "judge": recipe.judge,
        "pairs": recipe.pairs,
        "rounds": recipe.rounds,
        "sft": recipe.training.sft,
        "dpo": recipe.training.dpo,
    }
    found: dict[str, str | Path] = {"scores": recipe.scores}
    found |= {name: path for name, path in optional.items() if path is not None}
    return found | {f"stage_{index}": path for index, path in enumerate(recipe.stages)}
