"""Look preference pairs over before anyone trains on them, and say what is wrong.

  align audit my/pairs.parquet --image_root my/images
  align audit my/pairs.parquet --image_root my/images --model my/sft_checkpoint

Checks lengths, mentions of objects, number words and repetition, shared beginnings, duplicates and
contradictions, whether words alone tell chosen from rejected (a classifier that sees no picture), label noise
(by `truth`, or estimated from the judge's own errors), and the judge. With a reference checkpoint: how far
chosen is from what it would write, and whether its preference needs the picture at all. Each check says what
decides it, and shows the pairs to look at.

Writes `audit.json` and `audit.html`, a page with pictures that needs nothing else. Next: `align dpo`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import Field, model_validator

from align.config.recipe import StageRecipe, read_words, validate
from align.errors import AlignError
from align.models.loading import ModelSection
from align.objects.coco import read_json
from align.objects.mentions import Mode
from align.progress import say
from align.rows.schema import PreferenceRow, read_rows
from align.run.folder import RunFolder
from align.run.stage import Done, run_stage
from align.run.state import Input
from data_tools.audit.count_checks import check_counts
from data_tools.audit.findings import Finding
from data_tools.audit.judge_check import check_judge
from data_tools.audit.label_noise import check_noise
from data_tools.audit.page import render_page
from data_tools.audit.reference_check import check_blind, check_reach, score_pairs
from data_tools.audit.style_check import check_style
from data_tools.audit.text_checks import check_duplicates, check_length, check_prefix
from data_tools.material.truth import Annotations, load_truth, truth_inputs

_MARKS = {"good": "fine", "look": "LOOK", "bad": "MEND", "unknown": "-"}


class Recipe(StageRecipe):
    """The recipe of `align audit`."""

    run_dir: Path = Field(default=Path("runs"), description="the stage writes to run_dir/name")
    name: str = "audit"
    pairs: Path = Field(description="preference rows, .parquet or .jsonl")
    image_root: Path | None = Field(default=None, description="folder of the pictures; null shows none")
    judge: Path | None = Field(default=None, description="folder of the judge stage that made the pairs")
    truth: list[Annotations] = Field(default=[], description="annotations of the pictures, for label noise")
    objects_mode: Mode = Field(default="strict", description="how objects are found in texts (label noise)")
    model: ModelSection | None = Field(
        default=None, description="the reference checkpoint, for its reach and the blind check"
    )
    reference_pairs: int = Field(default=200, ge=2, description="pairs that the reference scores, at most")
    examples: int = Field(default=6, ge=0, description="pairs shown for each check")

    @model_validator(mode="after")
    def _complete(self) -> Recipe:
        if self.model is not None and self.image_root is None:
            raise ValueError("`model` needs `image_root`")
        return self


def direct(words: Sequence[str]) -> int | None:
    """`align audit PAIRS [--image_root ...]`; None where the words name a recipe, or are one."""
    if not words or "=" in words[0] or not words[0].endswith((".parquet", ".jsonl")):
        return None
    parser = argparse.ArgumentParser(
        prog="align audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", help="preference rows, .parquet or .jsonl")
    parser.add_argument("--image_root", help="folder of the pictures")
    parser.add_argument("--judge", help="folder of the judge stage")
    parser.add_argument("--model", help="the reference checkpoint")
    parser.add_argument("--run_dir", help="folder of the run, runs by default")
    parser.add_argument("--name", help="the stage's folder inside it, audit by default")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="any key of a recipe")
    given = {
        key: value for key, value in vars(parser.parse_intermixed_args(words)).items() if value is not None
    }
    values = read_words(given.pop("overrides"))
    if "model" in given:
        values.setdefault("model", {})["path"] = given.pop("model")
    run(validate(Recipe, values | given, where="command line"))
    return 0


def run(recipe: Recipe) -> RunFolder:
    """Check the pairs; byte-equal for the same recipe and inputs.

    Raises:
        AlignError: a bad row, no pairs, or a judge folder without `agreement.json`.
    """
    inputs: dict[str, Input] = {"pairs": recipe.pairs, **truth_inputs(recipe.truth)}
    if recipe.judge is not None:
        inputs["judge"] = recipe.judge
    if recipe.model is not None:
        inputs["model"] = recipe.model
    return run_stage(recipe, inputs, lambda folder: _work(recipe, folder))


def _work(recipe: Recipe, folder: RunFolder) -> Done:
    rows = list(read_rows(PreferenceRow, recipe.pairs))
    if not rows:
        raise AlignError("no pairs", where=str(recipe.pairs))
    findings = check_all(recipe, rows)
    show(findings)
    record = {
        "pairs": len(rows),
        "findings": {
            item.key: {
                key: value
                for key, value in asdict(item).items()
                if key in ("state", "said", "advice", "numbers", "rows")
            }
            for item in findings
        },
    }
    (folder.work / "audit.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    by_id = {row.id: row for row in rows}
    page = render_page(f"Audit of {recipe.pairs.name}", findings, by_id, recipe.image_root, recipe.examples)
    (folder.work / "audit.html").write_text(page, encoding="utf-8")
    states = {item.key: item.state for item in findings}
    say(f"  page: {folder.final / 'audit.html'}")
    return Done({"pairs": len(rows), "states": states}, "align dpo RECIPE")


def check_all(recipe: Recipe, rows: Sequence[PreferenceRow]) -> list[Finding]:
    """All checks, in the order of the page."""
    judge = None if recipe.judge is None else read_json(recipe.judge / "agreement.json")
    truth = load_truth(recipe.truth, recipe.objects_mode)
    findings = [
        check_length(rows, recipe.seed),
        *check_counts(rows, recipe.seed),
        check_style(rows, recipe.seed),
        check_noise(rows, truth, judge, recipe.objects_mode, recipe.seed),
        check_judge(judge),
        check_duplicates(rows),
        check_prefix(rows),
    ]
    scored = []
    if recipe.model is not None and recipe.image_root is not None:
        scored = score_pairs(recipe.model, rows, recipe.image_root, recipe.reference_pairs, recipe.seed)
    if scored:
        return [*findings, check_blind(scored, recipe.seed), check_reach(scored, recipe.seed)]
    missing = "needs the reference checkpoint (model) and pairs with pictures"
    return [
        *findings,
        Finding("blind", "Without the picture", "unknown", missing),
        Finding("off_policy", "Reach of the reference", "unknown", missing),
    ]


def show(findings: Sequence[Finding]) -> None:
    """Print a line for each finding, and its advice."""
    for item in findings:
        say(f"  {_MARKS[item.state]:<5} {item.title}: {item.said}")
        if item.advice:
            say(f"        {item.advice}")
