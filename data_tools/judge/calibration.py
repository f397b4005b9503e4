"""A judge against people's labels or against the annotations: accuracy, kappa, and what order does to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from align.digest import digest_json
from align.errors import AlignError
from align.judging import pairwise as judging
from align.judging.kappa import agreement_of
from align.judging.replies import LETTERS, Side
from align.objects.mentions import Mode
from align.rows.schema import BaseRow, Candidate, read_rows
from data_tools.judge.agreement import measure_agreement
from data_tools.judge.asking import by_prompt
from data_tools.material.claims import split_objects

Winner = Side


class RatingLabel(BaseRow):
    """A person's rating of one answer or instruction row."""

    id: str
    rating: int = Field(ge=1, le=5)


class PreferenceLabel(BaseRow):
    """A person's choice between two answers to one prompt."""

    chosen_id: str
    rejected_id: str


class ClaimLabel(BaseRow):
    """A person's word on one claim of an answer: `claim` is its text in the judge's `verdicts.jsonl`."""

    id: str
    claim: str
    holds: bool


Label = TypeVar("Label", RatingLabel, PreferenceLabel, ClaimLabel)


def read_labels(cls: type[Label], path: Path | None) -> list[Label]:
    """People's labels; none without a file.

    Raises:
        AlignError: a bad row, an empty file, or two labels that contradict each other.
    """
    if path is None:
        return []
    rows = list(read_rows(cls, path))
    if not rows:
        raise AlignError("no labels", where=str(path), fix="leave `labels` out, or fill the file")
    seen: dict[object, object] = {}
    for row in rows:
        about, said = _about(row)
        if seen.setdefault(about, said) != said:
            raise AlignError(
                f"two labels of {about} differ: {seen[about]} and {said}",
                where=str(path),
                fix="keep one of them",
            )
    return rows


def _about(row: RatingLabel | PreferenceLabel | ClaimLabel) -> tuple[object, object]:
    """What a label is about, and what it says of it."""
    if isinstance(row, RatingLabel):
        return row.id, row.rating
    if isinstance(row, ClaimLabel):
        return (row.id, row.claim), row.holds
    return " and ".join(sorted((row.chosen_id, row.rejected_id))), f"{row.chosen_id} is better"


def labels_claims(path: Path | None) -> bool:
    """Whether a file of labels is about claims, by the keys of its first row."""
    if path is None or not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        first = next((line for line in lines if line.strip()), "")
    return '"claim"' in first


def invented(candidates: Sequence[Candidate], truth: Mapping[int, set[str]], mode: Mode) -> dict[str, int]:
    """Candidate id -> how many objects it names that are not there; annotated dev images only."""
    return {
        row.id: len(set(split_objects(row.text, mode)) - truth[row.meta["image_id"]])
        for row in candidates
        if row.meta.get("split") == "dev" and row.meta.get("image_id") in truth
    }


def true_preferences(candidates: Sequence[Candidate], counts: Mapping[str, int]) -> list[PreferenceLabel]:
    """By the annotations: of two answers to one prompt the one that invents less; equal ones are no label."""
    found = []
    for rows in by_prompt(candidates).values():
        known = [row.id for row in rows if row.id in counts]
        for place, first in enumerate(known):
            for second in known[place + 1 :]:
                if counts[first] != counts[second]:
                    better, worse = sorted((first, second), key=lambda name: counts[name])
                    found.append(PreferenceLabel(chosen_id=better, rejected_id=worse))
    return found


def calibrate_ratings(
    ratings: Mapping[str, float],
    labels: Mapping[str, float],
    clusters: Mapping[str, str],
    keep_at_least: float,
    seed: int,
) -> dict[str, Any]:
    """How far the judge keeps what the labels would keep, and how often its rating is the label itself.

    Args:
        ratings: scored answers; those without a label are left out.
        clusters: answer -> its image, which the bootstrap resamples.

    Returns:
        As `measure_agreement` of the decision to keep (`true_kept`: of what should be kept), and `exact`:
        agreement and kappa of the ratings, a mean one rounded.
    """
    both = sorted(set(ratings) & set(labels))
    decisions = [
        (clusters[name], labels[name] >= keep_at_least, ratings[name] >= keep_at_least) for name in both
    ]
    exact = agreement_of([(round(ratings[name]), round(labels[name])) for name in both])
    return measure_agreement(decisions, seed) | {"exact": exact}


def calibrate_choices(
    winners: Mapping[tuple[str, str], Winner],
    labels: Sequence[PreferenceLabel],
    clusters: Mapping[str, str],
    seed: int,
) -> dict[str, Any]:
    """How often the judge prefers the labelled answer.

    Args:
        winners: (first, second) -> what the judge said of them.

    Returns:
        As `measure_agreement` of "the drawn one is better" over the couples with a label and a winner, where
        one of each couple is drawn by the seed, half of them the better one. `undecided`: labelled couples
        that the judge calls a tie, which are in none of the measures but `accuracy_ties_half` (a tie is half
        right); `unjudged`: labelled couples without a verdict.
    """
    wanted = {frozenset((label.chosen_id, label.rejected_id)): label.chosen_id for label in labels}
    decided: list[tuple[str, str, bool]] = []
    undecided = 0
    for (first, second), winner in winners.items():
        chosen = wanted.get(frozenset((first, second)))
        if chosen is None:
            continue
        if winner == "tie":
            undecided += 1
        else:
            place = digest_json([seed, *sorted((first, second))])
            decided.append((place, clusters[first], (winner == "first") == (chosen == first)))
    # A draw, not the ids, says which answer of a couple the question is about: else a better answer whose id
    # always sorts first would leave one class empty, and a judge that is always right unmeasured.
    decisions = [
        (cluster, number % 2 == 0, (number % 2 == 0) is is_right)
        for number, (_, cluster, is_right) in enumerate(sorted(decided))
    ]
    right = sum(is_right for *_, is_right in decided)
    told = len(decided) + undecided
    return measure_agreement(decisions, seed) | {
        "undecided": undecided,
        "unjudged": len(wanted) - told,
        "accuracy_ties_half": round((right + undecided / 2) / told, 4) if told else None,
    }


def order_bias(choices: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What the place of an answer does to a judge that saw each couple in both orders.

    Args:
        choices: the letters (`A`, `B` or `C` for a tie) in the first order and in the swapped one.

    Returns:
        `first_place_share`: of all letters A and B, the share of A; 0.5 is unbiased. `inconsistent`: the
        share of couples whose two orders name different answers. None where there is nothing to count.
    """
    found = judging.order_bias([(LETTERS[forth], LETTERS[back]) for forth, back in choices])
    return {
        "couples": found.couples,
        "first_place_share": None if found.first_place is None else round(found.first_place, 4),
        "inconsistent": None if found.consistent is None else round(1 - found.consistent, 4),
    }
