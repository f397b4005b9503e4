"""Build preference pairs from judged answers: the truer answer is chosen, lengths kept equal.

A pair needs a score gap, a chosen answer that ended by itself, and (by default) a chosen answer that
says at least as much that the judge confirms: otherwise DPO learns to name fewer objects. Lengths
are balanced over the set. A judge near chance is refused. Writes `pairs.parquet` (train prompts only)
and `dropped.json`; pairs built the same way on dev images are compared with the annotations.

  align pairs recipes/quickstart/pairs.yaml min_gap=2 max_pairs_per_prompt=1

Next: `align dpo`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from align.config import StageRecipe
from align.errors import AlignError
from align.objects import Mode
from align.progress import say
from align.run import RunFolder
from align.schema import Candidate, Message, PreferenceRow, Verdict, read_rows, write_rows
from data_tools.claims import split_objects
from data_tools.judged import read_candidates
from data_tools.length_balance import Balanced, Pair, balance
from data_tools.tally import Tally
from data_tools.truth import Annotations, load_truth, truth_inputs


class Recipe(StageRecipe):
    """The recipe of `align pairs`."""

    name: str = "pairs"
    candidates: Path = Field(description="candidates.jsonl of the sample stage")
    verdicts: Path = Field(description="verdicts.jsonl of the judge stage")
    agreement: Path = Field(description="agreement.json of the judge stage")
    strategy: Literal["best_worst", "all"] = Field(
        default="all", description="best_worst: only a prompt's best score against its worst"
    )
    min_gap: float = Field(default=1.0, gt=0, description="smallest difference of scores (denied claims)")
    max_pairs_per_prompt: int = Field(default=2, ge=1, description="most pairs of one prompt")
    max_confirmed_loss: int | None = Field(
        default=0, ge=0, description="confirmed claims that chosen may have fewer than rejected; null: any"
    )
    length_tolerance: float | None = Field(
        default=0.25, gt=0, description="largest mean length gap, tokens; null: lengths are not balanced"
    )
    max_trimmed: float = Field(default=0.5, ge=0, le=1, description="share of pairs that balancing may drop")
    min_pairs: int = Field(default=1, ge=1, description="fewer train pairs are an error")
    min_balanced_accuracy: float = Field(
        default=0.6, ge=0, le=1, description="lower bound of the judge's balanced accuracy; 0.5 is chance"
    )
    truth: list[Annotations] = Field(default=[], description="annotations of the dev images, for the check")
    objects_mode: Mode = Field(default="strict", description="how objects are found in texts (the check)")


@dataclass(frozen=True)
class Answer:
    """A candidate with its verdict."""

    row: Candidate
    verdict: Verdict

    @property
    def score(self) -> float:
        """The judge's score; only scored answers become `Answer`s."""
        return self.verdict.score or 0.0

    @property
    def confirmed(self) -> int:
        """Claims that the judge finds in the picture."""
        return sum(claim.supported is True for claim in self.verdict.claims)


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
        chosen = {split: select(recipe, found, tallies[split][1]) for split, found in answers.items()}
        for tally in tallies["train"]:
            tally.show()
        _show_balance(recipe, chosen["train"])
        by_id = {
            answer.row.id: answer
            for found in answers.values()
            for items in found.values()
            for answer in items
        }
        if len(chosen["train"].pairs) < recipe.min_pairs:
            raise AlignError(
                f"{len(chosen['train'].pairs)} train pairs, at least {recipe.min_pairs} are wanted",
                where=str(recipe.verdicts),
                fix="sample more prompts or more answers each, or at a higher temperature",
            )
        rows = [preference_row(pair, by_id) for pair in chosen["train"].pairs]
        write_rows(folder.work / "pairs.parquet", rows)
        check = check_on_dev(recipe, chosen["dev"].pairs, by_id)
        dropped = {tally.what: tally.to_json() for split in tallies.values() for tally in split}
        (folder.work / "dropped.json").write_text(json.dumps(dropped, indent=1, sort_keys=True) + "\n")
        folder.complete(metrics=_metrics(rows, chosen["train"], by_id, check), next_step="align dpo RECIPE")
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


def join(
    candidates: Sequence[Candidate], verdicts: Path, tallies: Mapping[str, tuple[Tally, Tally]]
) -> dict[str, dict[str, list[Answer]]]:
    """Split -> prompt id -> its usable answers; the others are counted with a reason.

    Raises:
        AlignError: a candidate without verdict: the two files are not of the same run.
    """
    judged = {row.candidate_id: row for row in read_rows(Verdict, verdicts)}
    found: dict[str, dict[str, list[Answer]]] = {split: {} for split in tallies}
    for row in candidates:
        if row.id not in judged:
            raise AlignError(
                f"no verdict on candidate {row.id}", where=str(verdicts), fix="run the judge again"
            )
        split = "dev" if row.meta.get("split") == "dev" else "train"
        tally, verdict = tallies[split][0], judged[row.id]
        if not row.text.strip():
            tally.drop("empty answer", row.id)
        elif verdict.score is None:
            tally.drop(f"unscored: {verdict.unscored_reason.split(':')[0]}", row.id)
        else:
            tally.keep()
            found[split].setdefault(row.prompt_id, []).append(Answer(row, verdict))
    return found


def select(recipe: Recipe, answers: Mapping[str, Sequence[Answer]], tally: Tally) -> Balanced:
    """The pairs of one split, balanced in length."""
    eligible = {
        prompt_id: eligible_pairs(recipe, items, tally) for prompt_id, items in sorted(answers.items())
    }
    possible = sum(len(pairs) for pairs in eligible.values())
    tolerance = float("inf") if recipe.length_tolerance is None else recipe.length_tolerance
    found = balance(eligible, recipe.max_pairs_per_prompt, tolerance, recipe.max_trimmed, recipe.seed)
    for pair in found.trimmed:
        tally.drop("length balance", f"{pair.chosen_id}>{pair.rejected_id}")
    surplus = possible - len(found.pairs) - len(found.trimmed)
    if surplus:
        tally.drop("more than max_pairs_per_prompt", "", surplus)
    tally.keep(len(found.pairs))
    return found


def eligible_pairs(recipe: Recipe, answers: Sequence[Answer], tally: Tally) -> list[Pair]:
    """All pairs of one prompt that may be taken; each refused couple of answers is counted once."""
    ordered = sorted(answers, key=lambda answer: (-answer.score, answer.row.id))
    scores = [answer.score for answer in ordered]
    pairs = []
    for i, chosen in enumerate(ordered):
        for rejected in ordered[i + 1 :]:
            reason = _refusal(recipe, chosen, rejected, max(scores), min(scores))
            if reason:
                tally.drop(reason, f"{chosen.row.id}>{rejected.row.id}")
                continue
            gap = chosen.row.num_tokens - rejected.row.num_tokens
            margin = chosen.score - rejected.score
            pairs.append(Pair(chosen.row.prompt_id, chosen.row.id, rejected.row.id, margin, gap))
    return pairs


def _refusal(recipe: Recipe, chosen: Answer, rejected: Answer, best: float, worst: float) -> str:
    if chosen.score == rejected.score:
        return "tie"
    if chosen.score - rejected.score < recipe.min_gap:
        return "score gap below min_gap"
    if chosen.row.text == rejected.row.text:
        return "identical texts"
    if chosen.row.finish_reason != "stop":
        return "chosen answer is truncated"
    if recipe.strategy == "best_worst" and (chosen.score < best or rejected.score > worst):
        return "not best against worst"
    allowed = recipe.max_confirmed_loss
    if allowed is not None and chosen.confirmed < rejected.confirmed - allowed:
        return "chosen answer confirms less"
    return ""


def preference_row(pair: Pair, answers: Mapping[str, Answer]) -> PreferenceRow:
    """The training row of a pair."""
    chosen, rejected = answers[pair.chosen_id], answers[pair.rejected_id]
    meta: dict[str, Any] = {"margin": pair.margin, "judge": chosen.verdict.judge}
    meta |= {key: value for key, value in chosen.row.meta.items() if key != "count"}
    for side, answer in (("chosen", chosen), ("rejected", rejected)):
        meta[f"{side}_score"] = answer.score
        meta[f"{side}_tokens"] = answer.row.num_tokens
        meta[f"{side}_confirmed"] = [c.text for c in answer.verdict.claims if c.supported]
        meta[f"{side}_denied"] = [c.text for c in answer.verdict.claims if not c.supported]
    return PreferenceRow(
        id=f"{pair.chosen_id}>{pair.rejected_id}",
        images=chosen.row.images,
        prompt=chosen.row.prompt,
        chosen=[Message(role="assistant", content=chosen.row.text)],
        rejected=[Message(role="assistant", content=rejected.row.text)],
        meta=meta,
    )


def check_on_dev(
    recipe: Recipe, pairs: Sequence[Pair], answers: Mapping[str, Answer]
) -> dict[str, Any] | None:
    """How often dev pairs, built like the train ones, prefer the answer that truly invents less.

    Returns:
        Counts of `right`, `tied` (both invent equally much) and `wrong`, and `right_share` of the
        untied; None without annotations of the dev images.
    """
    truth = load_truth(recipe.truth, recipe.objects_mode)

    def invented(answer_id: str) -> int:
        row = answers[answer_id].row
        return len(set(split_objects(row.text, recipe.objects_mode)) - truth[row.meta["image_id"]])

    known = [pair for pair in pairs if answers[pair.chosen_id].row.meta.get("image_id") in truth]
    if not known:
        say("  no annotated dev pairs: not checked against the truth")
        return None
    differences = [invented(pair.rejected_id) - invented(pair.chosen_id) for pair in known]
    right, wrong = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    tied = len(known) - right - wrong
    share = round(right / (right + wrong), 4) if right + wrong else None
    say(
        f"  on dev, the chosen answer truly invents less in {right} of {len(known)} pairs, equally much in "
        f"{tied}, more in {wrong}"
    )
    return {"pairs": len(known), "right": right, "tied": tied, "wrong": wrong, "right_share": share}


def _show_balance(recipe: Recipe, found: Balanced) -> None:
    say(
        f"  mean length of chosen minus rejected, tokens: {found.before:+.2f} by margin alone, "
        f"{found.searched:+.2f} at shortening ratio {found.ratio:.2f}, {found.after:+.2f} after trimming "
        f"{len(found.trimmed)} pairs"
    )
    if recipe.length_tolerance is not None and abs(found.after) > recipe.length_tolerance:
        say(f"  WARNING: not within {recipe.length_tolerance} tokens: DPO may learn length from these pairs")


def _metrics(
    rows: Sequence[PreferenceRow],
    found: Balanced,
    answers: Mapping[str, Answer],
    check: dict[str, Any] | None,
) -> dict[str, Any]:
    def mean(values: list[int]) -> float:
        return round(sum(values) / max(len(values), 1), 3)

    sides = {
        "chosen": [answers[pair.chosen_id] for pair in found.pairs],
        "rejected": [answers[pair.rejected_id] for pair in found.pairs],
    }
    metrics: dict[str, Any] = {
        "pairs": len(rows),
        "prompts": len({pair.prompt_id for pair in found.pairs}),
        "shortening_ratio": found.ratio,
        "length_gap": {
            "by_margin": round(found.before, 3),
            "searched": round(found.searched, 3),
            "after": round(found.after, 3),
        },
        "trimmed": len(found.trimmed),
        "dev_check": check,
    }
    for side, items in sides.items():
        metrics[f"{side}_tokens"] = mean([item.row.num_tokens for item in items])
        metrics[f"{side}_words"] = mean([len(item.row.text.split()) for item in items])
        metrics[f"{side}_confirmed"] = mean([item.confirmed for item in items])
    return metrics
