"""Look preference pairs over before anyone trains on them, and say what is wrong.

  align audit my/pairs.parquet --image_root my/images
  align audit my/pairs.parquet --image_root my/images --model my/sft_checkpoint

Checks lengths in any script, layout and punctuation, mentions of objects, number words and repetition, shared
beginnings, duplicates and contradictions, whether words alone tell chosen from rejected (a classifier that
sees no picture), label noise (by `truth`, or estimated from the judge's own errors), and the judge. With a
reference checkpoint: how far chosen is from what it would write, and whether its preference needs the picture
at all. Each check says what decides it, and shows the pairs to look at. Rows are read one by one.

Writes `audit.json`, `duplicates.jsonl` (every pair that occurs again, nearly again, or in a contradiction;
`align drop` takes them out) and `audit.html`, a page with pictures that needs nothing else. Next: `align
dpo`.
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
from align.rows.schema import PreferenceRow
from align.run.folder import RunFolder
from align.run.stage import Done, open_quarantine, run_stage
from align.run.state import Input
from data_tools.audit.count_checks import CountChecks
from data_tools.audit.duplicates import Duplicate, DuplicateCheck
from data_tools.audit.findings import Finding
from data_tools.audit.judge_check import check_judge
from data_tools.audit.label_noise import NoiseCheck
from data_tools.audit.length_check import LengthCheck, PrefixCheck
from data_tools.audit.page import headline, render_page
from data_tools.audit.reading import each_pair, rows_of
from data_tools.audit.reference_check import check_blind, check_reach, drawn_ids, score_pairs
from data_tools.audit.style_check import LayoutCheck, StyleCheck
from data_tools.material.truth import Annotations, load_truth, truth_inputs

DUPLICATES = "duplicates.jsonl"
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
    style_pairs: int = Field(
        default=20_000, ge=50, description="pairs that the classifier of words is tested on, drawn from all"
    )
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
        AlignError: no sound pair, or a judge folder without `agreement.json`.
    """
    inputs: dict[str, Input] = {"pairs": recipe.pairs, **truth_inputs(recipe.truth)}
    if recipe.judge is not None:
        inputs["judge"] = recipe.judge
    if recipe.model is not None:
        inputs["model"] = recipe.model
    return run_stage(recipe, inputs, lambda folder: _work(recipe, folder))


def _work(recipe: Recipe, folder: RunFolder) -> Done:
    checks = Checks(recipe)
    with open_quarantine(folder, "rows") as bad:
        for row in each_pair(recipe.pairs, bad):
            checks.add(row)
            bad.tally.keep()
    if not checks.pairs:
        fix = f"no row is sound; the first: {bad.first}" if bad.first else "the file is empty"
        raise AlignError("no pairs", where=str(recipe.pairs), fix=fix)
    findings, duplicates = checks.findings()
    show(findings)
    unread = bad.tally.dropped.total()
    if unread:
        bad.tally.show()
    with (folder.work / DUPLICATES).open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(asdict(item)) + "\n" for item in duplicates)
    told = ("state", "said", "advice", "numbers", "rows")
    record = {
        "pairs": checks.pairs,
        "unread": unread,
        "findings": {item.key: {name: getattr(item, name) for name in told} for item in findings},
    }
    (folder.work / "audit.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    shown = {row_id for item in findings for row_id in item.rows[: recipe.examples]}
    page = render_page(
        f"Audit of {recipe.pairs.name}",
        findings,
        rows_of(recipe.pairs, shown),
        recipe.image_root,
        recipe.examples,
        (checks.pairs, unread),
        f"align show {recipe.pairs} --serve"
        + (f" --image_root {recipe.image_root}" if recipe.image_root is not None else ""),
    )
    (folder.work / "audit.html").write_text(page, encoding="utf-8", errors="replace")
    say(f"  {headline(findings)}")
    say(f"  page: {folder.final / 'audit.html'}")
    if duplicates:
        say(f"  duplicates, {len(duplicates)} lines: {folder.final / DUPLICATES}")
    states = {item.key: item.state for item in findings}
    return Done({"pairs": checks.pairs, "states": states}, "align dpo RECIPE")


class Checks:
    """All checks; each sees every pair once.

    Attributes:
        pairs: how many were seen.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.pairs = 0
        self._recipe = recipe
        self._judge = None if recipe.judge is None else read_json(recipe.judge / "agreement.json")
        truth = load_truth(recipe.truth, recipe.objects_mode)
        self._length, self._layout, self._counts = LengthCheck(), LayoutCheck(), CountChecks()
        self._style = StyleCheck(recipe.style_pairs, recipe.seed)
        self._noise = NoiseCheck(truth, self._judge, recipe.objects_mode)
        self._duplicates, self._prefix = DuplicateCheck(recipe.image_root), PrefixCheck()
        self._with_pictures: list[str] = []
        self._each = (self._length, self._layout, self._counts, self._style, self._noise)

    def add(self, row: PreferenceRow) -> None:
        """Show one pair to every check."""
        for check in (*self._each, self._duplicates, self._prefix):
            check.add(row)
        self.pairs += 1
        if row.images and self._recipe.model is not None:
            self._with_pictures.append(row.id)

    def findings(self) -> tuple[list[Finding], list[Duplicate]]:
        """What they found, in the order of the page; and every duplicate."""
        seed = self._recipe.seed
        duplicates = self._duplicates.found()
        say("  weighing what was read: a classifier of words, intervals")
        findings = [
            self._length.finding(seed),
            self._layout.finding(seed),
            *self._counts.findings(seed),
            self._style.finding(),
            self._noise.finding(seed),
            check_judge(self._judge),
            self._duplicates.finding(duplicates),
            self._prefix.finding(),
        ]
        return [*findings, *self._reference()], duplicates

    def _reference(self) -> list[Finding]:
        recipe, scored = self._recipe, []
        if recipe.model is not None and recipe.image_root is not None and self._with_pictures:
            ids = drawn_ids(self._with_pictures, recipe.reference_pairs, recipe.seed)
            rows = rows_of(recipe.pairs, ids)
            scored = score_pairs(recipe.model, [rows[row_id] for row_id in ids], recipe.image_root)
        if scored:
            return [check_blind(scored, recipe.seed), check_reach(scored, recipe.seed)]
        missing = "needs the reference checkpoint (model) and pairs with pictures"
        return [
            Finding("blind", "Without the picture", "unknown", missing),
            Finding("off_policy", "Reach of the reference", "unknown", missing),
        ]


def show(findings: Sequence[Finding]) -> None:
    """Print a line for each finding, and its advice."""
    for item in findings:
        say(f"  {_MARKS[item.state]:<5} {item.title}: {item.said}")
        if item.advice:
            say(f"        {item.advice}")
