"""What an answer is worth by the claims it makes: true ones earn, false ones and repetitions cost.

RLAIF-V's score is minus the number of denied claims (`score: denied`). Silence is then the best answer, and
naming an object again costs nothing. `score: utility` counts what is said:

    score = confirmed * true claims + denied * false claims + repeated * objects named again

With 0.5, -1 and -1 a claim is worth making from a probability of 2/3 on (0.5 p = 1 - p): an answer that says
less loses, one that guesses loses more. A repetition costs what a false claim does, because it is one: "a
dog, a dog" beside one dog is a false number, seen without a judge; the object itself still earns once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from pydantic import Field

from align.config.recipe import Strict
from align.objects.mentions import Mention
from align.rows.schema import Claim, ClaimCount, ClaimKind
from data_tools.material.claims import score_claims

Outcome = Literal["true", "false", "void", "unscored", "left_out"]


class ClaimScores(Strict):
    """What each claim adds to an answer's score (`score: utility`)."""

    confirmed: float = Field(default=0.5, ge=0, description="a claim that the judge confirms")
    denied: float = Field(default=-1.0, le=0, description="a claim that the judge denies")
    repeated: float = Field(
        default=-1.0, le=0, description="an object that is named again as if it were a further one"
    )


def count_claims(claims: Sequence[Claim], left_out: Collection[ClaimKind]) -> list[ClaimCount]:
    """An answer's claims by kind, in order of first mention of each kind.

    What is said of an object whose presence is denied or unscored is void: one invention is one false claim,
    however much is told of it.

    Args:
        left_out: kinds that the judge cannot judge.
    """
    there = {claim.category for claim in claims if claim.kind == "presence" and claim.supported}
    found: dict[ClaimKind, ClaimCount] = {}
    for claim in claims:
        count = found.setdefault(claim.kind, ClaimCount(kind=claim.kind))
        outcome = _outcome(claim, there, left_out)
        setattr(count, outcome, getattr(count, outcome) + 1)
    return list(found.values())


def _outcome(claim: Claim, there: Collection[str], left_out: Collection[ClaimKind]) -> Outcome:
    if claim.kind in left_out:
        return "left_out"
    if not is_judged(claim, there):
        return "void"
    if claim.supported is None:
        return "unscored"
    return "true" if claim.supported else "false"


def is_judged(claim: Claim, there: Collection[str]) -> bool:
    """Whether a claim is judged by itself: presence, what is said of objects that are all there, and what a
    model has split, which names no category."""
    other = claim.value.partition(":")[2]
    return (
        claim.kind == "presence"
        or not claim.category
        or (claim.category in there and (not other or other in there))
    )


def is_primary(claim: Claim) -> bool:
    """Whether an answer is unscored without a verdict on this claim."""
    return claim.kind == "presence" or not claim.category


def score_answer(
    claims: Sequence[Claim], counts: Sequence[ClaimCount], num_repeated: int, scores: ClaimScores | None
) -> tuple[float | None, str]:
    """An answer's score and, where it has none, the reason.

    An answer without claims is unscored, since nothing in it was checked, and so is one of whose objects one
    could not be judged. Other claims that could not be judged count nothing.

    Args:
        counts: of the claims, by `count_claims`.
        scores: None: minus the denied claims, as RLAIF-V does, every claim scored.
    """
    judged = {count.kind for count in counts if not count.left_out}
    if scores is None:
        return score_claims([claim for claim in claims if claim.kind in judged])
    # Claims that a model has split stand by themselves: an answer about a chart may name no object at all.
    primary = [claim for claim in claims if claim.kind in judged and is_primary(claim)]
    if claims and not judged:
        return None, "no claim of a kind that counts: see min_kind_agreement"
    _, reason = score_claims(primary)
    if reason:
        return None, reason
    true, false = sum(count.true for count in counts), sum(count.false for count in counts)
    score = scores.confirmed * true + scores.denied * false + scores.repeated * num_repeated
    return round(score, 6), ""


def score_by_mentions(mentions: Sequence[Mention], claims: Sequence[Claim]) -> tuple[float | None, str]:
    """Minus CHAIRi of one answer, and where it has none, the reason.

    CHAIRi is the share of mentions whose object is not there, an object as often as it is named (Rohrbach et
    al. 2018). CHAIR-DPO (Compagnoni et al. 2025, arXiv 2508.20181) prefers the answer whose share is smaller.
    """
    _, reason = score_claims([claim for claim in claims if claim.kind == "presence"])
    if reason:
        return None, reason
    denied = {claim.category for claim in claims if claim.kind == "presence" and not claim.supported}
    false = sum(mention.category in denied for mention in mentions)
    return round(-false / len(mentions), 6), ""
