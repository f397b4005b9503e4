"""Build preference pairs from judged answers: the truer answer is chosen, lengths kept equal.

A pair needs a score gap, a chosen answer that ended by itself, and (by default) a chosen answer that
says at least as much that the judge confirms: otherwise DPO learns to name fewer objects. Lengths
are balanced over the set, and style if `style_tolerance` is set. A judge near chance is refused. Writes
`pairs.parquet` (train prompts only) and `dropped.json`; pairs built the same way on dev images are compared
with the annotations. The gap of scores stays in `meta.margin`, for a beta of its own for each pair.

  strategy: minimal_edit   each answer against itself without the objects that the judge denies; `spans` mark
                           them, for dense DPO (objective.token_weights)

  align pairs recipes/quickstart/pairs.yaml min_gap=2 max_pairs_per_prompt=1

Next: `align dpo`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from align.errors import AlignError
from align.progress import say
from align.run import RunFolder
from align.schema import Message, PreferenceRow, write_rows
from data_tools.claims import split_objects
from data_tools.judged import read_candidates
from data_tools.pair_selection import Built, build, join
from data_tools.pairs_recipe import Recipe
from data_tools.tally import Tally
from data_tools.truth import load_truth, truth_inputs


def run(recipe: Recipe) -> RunFolder:
    """Build the pairs; byte-equal for the same recipe and inputs.

    Raises:
        AlignError: a judge near chance, verdicts that do not belong to the candidates, or fewer than
            `min_pairs` pairs.
    """
    inputs = {"candidates": recipe.candidates, "verdicts": recipe.verdicts, "agreement": recipe.agreement}
    folder = RunFolder.open(recipe, {**inputs, **truth_inputs(recipe.truth)})
    if folder.is_complete:
        return folder
    with folder:
        check_judge(recipe)
        tallies = {split: (Tally(f"{split} answers"), Tally(f"{split} pairs")) for split in ("train", "dev")}
        answers = join(read_candidates(recipe.candidates), recipe.verdicts, tallies)
        built = {split: build(recipe, found, tallies[split][1]) for split, found in answers.items()}
        train = built["train"]
        for tally in tallies["train"]:
            tally.show()
        _show_balance(recipe, train)
        if len(train.rows) < recipe.min_pairs:
            raise AlignError(
                f"{len(train.rows)} train pairs, at least {recipe.min_pairs} are wanted",
                where=str(recipe.verdicts),
                fix="sample more prompts or more answers each, or at a higher temperature",
            )
        write_rows(folder.work / "pairs.parquet", train.rows)
        check = check_on_dev(recipe, built["dev"].rows)
        dropped = {tally.what: tally.to_json() for split in tallies.values() for tally in split}
        (folder.work / "dropped.json").write_text(json.dumps(dropped, indent=1, sort_keys=True) + "\n")
        folder.complete(metrics=_metrics(train, check), next_step="align dpo RECIPE")
    return folder


def check_judge(recipe: Recipe) -> None:
    """Refuse a judge whose balanced accuracy against the annotations may be near chance.

    Raises:
        AlignError: the lower bound of its 95% interval is below `min_balanced_accuracy`, or unknown.
    """
    try:
        measured = json.loads(recipe.agreement.read_text())["balanced_accuracy"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise AlignError(
            f"cannot read the judge's agreement: {error}", where=str(recipe.agreement)
        ) from error
    low = measured["ci_low"] if measured else 0.0
    if low < recipe.min_balanced_accuracy:
        words = f"{measured['value']:.3f} [{low:.3f}, {measured['ci_high']:.3f}]" if measured else "unknown"
        raise AlignError(
            f"the judge is too near chance to build pairs from: balanced accuracy {words}, "
            f"its lower bound must reach {recipe.min_balanced_accuracy}",
            where=str(recipe.agreement),
            fix="teach the judge yes/no questions (longer SFT), take a better judge, or name more dev images "
            "with their `truth` in the judge's recipe so that the interval narrows",
        )


def check_on_dev(recipe: Recipe, rows: Sequence[PreferenceRow]) -> dict[str, Any] | None:
    """How often dev pairs, built like the train ones, prefer the answer that truly invents less.

    Returns:
        Counts of `right`, `tied` (both invent equally much) and `wrong`, and `right_share` of the
        untied; None without annotations of the dev images.
    """
    truth = load_truth(recipe.truth, recipe.objects_mode)

    def invented(messages: Sequence[Message], image_id: int) -> int:
        return len(set(split_objects(messages[-1].content, recipe.objects_mode)) - truth[image_id])

    known = [row for row in rows if row.meta.get("image_id") in truth]
    if not known:
        say("  no annotated dev pairs: not checked against the truth")
        return None
    differences = [
        invented(row.rejected, row.meta["image_id"]) - invented(row.chosen, row.meta["image_id"])
        for row in known
    ]
    right, wrong = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    tied = len(known) - right - wrong
    share = round(right / (right + wrong), 4) if right + wrong else None
    say(
        f"  on dev, the chosen answer truly invents less in {right} of {len(known)} pairs, equally much in "
        f"{tied}, more in {wrong}"
    )
    return {"pairs": len(known), "right": right, "tied": tied, "wrong": wrong, "right_share": share}


def _show_balance(recipe: Recipe, built: Built) -> None:
    found = built.balanced
    if found is None:
        return
    say(
        f"  mean length of chosen minus rejected, tokens: {found.before:+.2f} by margin alone, "
        f"{found.searched:+.2f} at shortening ratio {found.ratio:.2f}, {found.after:+.2f} after trimming "
        f"{len(found.trimmed)} pairs"
    )
    if recipe.length_tolerance is not None and abs(found.after) > recipe.length_tolerance:
        say(f"  WARNING: not within {recipe.length_tolerance} tokens: DPO may learn length from these pairs")
    if built.style is None or recipe.style_tolerance is None:
        return
    for name, after in built.style["after"].items():
        before = built.style["before"][name]
        say(f"  style, {name.replace('_', ' ')}: {before:+.2f} before, {after:+.2f} after")
    if max(map(abs, built.style["after"].values())) > recipe.style_tolerance:
        say(f"  WARNING: style is not within {recipe.style_tolerance}: raise max_trimmed, or sample more")


def _metrics(built: Built, check: dict[str, Any] | None) -> dict[str, Any]:
    def mean(values: list[int]) -> float:
        return round(sum(values) / max(len(values), 1), 3)

    metrics: dict[str, Any] = {"pairs": len(built.rows), "prompts": built.prompts, "dev_check": check}
    if (found := built.balanced) is not None:
        metrics["shortening_ratio"] = found.ratio
        gaps = {"by_margin": found.before, "searched": found.searched, "after": found.after}
        metrics["length_gap"] = {name: round(gap, 3) for name, gap in gaps.items()}
        metrics["trimmed"] = len(found.trimmed)
    if built.style is not None:
        metrics["style_gap"] = built.style
    for side in ("chosen", "rejected"):
        texts = [(row.chosen if side == "chosen" else row.rejected)[-1].content for row in built.rows]
        metrics[f"{side}_words"] = mean([len(text.split()) for text in texts])
        if built.balanced is not None:
            metrics[f"{side}_tokens"] = mean([row.meta[f"{side}_tokens"] for row in built.rows])
            metrics[f"{side}_confirmed"] = mean([len(row.meta[f"{side}_confirmed"]) for row in built.rows])
    return metrics
