"""Best of n: rank the sampled answers of each prompt, keep the best, and show what a larger n buys.

Answers are ranked by the reward that a DPO policy carries, log pi/pi_ref a token of the policy against the
reference it was trained from (RLAIF-V, arXiv:2405.17220: self-feedback at inference), or by a judge's
verdicts. Writes `best.jsonl` (the best of all draws of each prompt, a candidate row), `scores.jsonl`,
`curve.json` and `curve.svg`: the best of 1, 2, 4, ... draws against the first, with paired 95% intervals and
the tokens that they cost.

  align sample recipes/quickstart/best.yaml
  align best recipes/quickstart/best.yaml

The truth of the pictures is used for the curve alone, never to rank.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, model_validator

from align.claims import PictureTruth, load_picture_truth
from align.config.recipe import StageRecipe, Strict
from align.errors import AlignError
from align.models.loading import ModelSection
from align.progress import say
from align.rows.schema import Candidate, write_rows
from align.run.folder import RunFolder
from align.run.stage import Done, run_stage
from align.run.state import Input
from evals.best.curve import Point, best_of, draw_curve
from evals.best.plot import plot_curve
from evals.best.ranking import Ranked, by_reward, by_verdicts, measure_logps, read_groups

_SHOWN = ("distinct_invention", "instance_precision", "object_recall", "repeated_captions", "words")


class Truth(Strict):
    """COCO-format annotations of the prompts' pictures, whose `meta.image_id` names them."""

    instances: Path = Field(description="COCO instances file")
    captions: Path | None = Field(default=None, description="COCO captions file of the same images")


class Recipe(StageRecipe):
    """The recipe of `align best`."""

    name: str = "best"
    candidates: Path = Field(description="candidates.jsonl of `align sample`, drawn from the policy")
    image_root: Path | None = Field(default=None, description="folder that image paths are relative to")
    policy: ModelSection | None = Field(default=None, description="the DPO checkpoint, merged")
    reference: ModelSection | None = Field(
        default=None, description="what it was trained from: the merged SFT checkpoint"
    )
    verdicts: Path | None = Field(
        default=None, description="verdicts.jsonl of `align judge` on the candidates; instead of the reward"
    )
    n: list[int] = Field(default=[1, 2, 4, 8], min_length=1, description="how many draws to choose among")
    truth: list[Truth] = Field(default=[], description="for the curve; without it, measures of text alone")

    @model_validator(mode="after")
    def _one_ranking(self) -> Recipe:
        both = self.policy is not None and self.reference is not None
        if (self.policy is None) != (self.reference is None) or both == (self.verdicts is not None):
            raise ValueError("set policy and reference, or verdicts")
        if sorted(set(self.n)) != self.n or self.n[0] < 1:
            raise ValueError("n must rise, from 1 on")
        return self


def run(recipe: Recipe) -> RunFolder:
    """Rank and measure.

    Raises:
        AlignError: no candidates, candidates without verdict, annotations that name none of the pictures.
    """
    return run_stage(recipe, _inputs(recipe), lambda folder: _work(recipe, folder))


def _work(recipe: Recipe, folder: RunFolder) -> Done:
    groups = read_groups(recipe.candidates)
    say(f"  {sum(map(len, groups))} answers to {len(groups)} prompts")
    ranked = _rank(recipe, groups, folder)
    truths = _truths(recipe, groups)
    points = draw_curve(ranked, recipe.n, truths, recipe.seed)
    best = [best_of(group, max(recipe.n)) for group in ranked]
    write_rows(folder.work / "best.jsonl", [item.row for item in best])
    with (folder.work / "scores.jsonl").open("w", encoding="utf-8") as out:
        for item in (item for group in ranked for item in group):
            out.write(json.dumps({"candidate_id": item.row.id, "score": item.score}) + "\n")
    curve = {"ranked_by": _ranked_by(recipe), "points": [point.to_json() for point in points]}
    (folder.work / "curve.json").write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")
    (folder.work / "curve.svg").write_text(plot_curve(points, _SHOWN), encoding="utf-8")
    _show(points)
    metrics = {"prompts": len(groups), "with_truth": len(truths), "last": points[-1].to_json()}
    return Done(metrics, "read curve.json, curve.svg and best.jsonl")


def _inputs(recipe: Recipe) -> dict[str, Input]:
    found: dict[str, Input] = {"candidates": recipe.candidates}
    for name in ("policy", "reference"):
        section = getattr(recipe, name)
        if section is not None:
            found[name] = section
    if recipe.verdicts is not None:
        found["verdicts"] = recipe.verdicts
    for number, item in enumerate(recipe.truth):
        found[f"instances_{number}"] = item.instances
        if item.captions is not None:
            found[f"captions_{number}"] = item.captions
    return found


def _rank(recipe: Recipe, groups: list[list[Candidate]], folder: RunFolder) -> list[list[Ranked]]:
    if recipe.verdicts is not None:
        return by_verdicts(groups, recipe.verdicts)
    assert recipe.policy is not None and recipe.reference is not None
    store = folder.scratch / "logps.jsonl"
    return by_reward(groups, measure_logps(groups, recipe.policy, recipe.reference, recipe.image_root, store))


def _ranked_by(recipe: Recipe) -> str:
    return "verdicts" if recipe.verdicts is not None else "reward a token, policy against reference"


def _truths(recipe: Recipe, groups: Sequence[Sequence[Candidate]]) -> dict[str, PictureTruth]:
    """Prompt id -> what is in its picture, where that is annotated."""
    pictures: dict[int, PictureTruth] = {}
    for item in recipe.truth:
        pictures |= load_picture_truth(item.instances, item.captions)
    found = {}
    for row in (group[0] for group in groups):
        image_id = row.meta.get("image_id")
        if image_id in pictures:
            found[row.prompt_id] = pictures[image_id]
    if pictures and not found:
        raise AlignError(
            "the annotations know none of the candidates' pictures",
            where="truth",
            fix="candidates carry their picture's number in meta.image_id; give annotations of that split",
        )
    return found


def _show(points: Sequence[Point]) -> None:
    for point in points:
        parts = [f"{name} {point.measures[name].value:.1f}" for name in _SHOWN if name in point.measures]
        say(f"  best of {point.n}: {point.tokens:.0f} tokens a prompt; {', '.join(parts)}")
