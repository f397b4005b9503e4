"""Kind claims: everything that an answer says of an object becomes a question to the judge (after RLAIF-V).

Each (picture, claim) is asked once. Presence decides what else is judged; numbers, places, colours and
relations count only if the judge is measured to know better than chance on annotated dev pictures. An object
that is named again needs no judge.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

from align.claims import CLAIM_KINDS, PictureTruth, StatedClaim, check, claims_in, named_instances, read_text
from align.errors import AlignError
from align.objects.mentions import find_objects
from align.progress import say
from align.rows.schema import Candidate, Claim, ClaimKind, Verdict
from align.run.folder import RunFolder
from data_tools.judge.agreement import measure_agreement, measure_kinds, unfit_kinds
from data_tools.judge.asking import Judged, Question, asker, by_prompt, read_candidates
from data_tools.judge.calibration import ClaimLabel, Winner, labels_claims, read_labels
from data_tools.judge.claim_questions import ask, claim_text
from data_tools.judge.claim_replies import ClaimReader, ask_claims
from data_tools.judge.claim_scores import count_claims, is_judged, score_answer, score_by_mentions
from data_tools.judge.pairwise import measure_choices
from data_tools.judge.recipe import Recipe
from data_tools.judge.split import split_truth
from data_tools.material.answer_counts import COUNTS, count_phrases
from data_tools.material.claims import split_objects
from data_tools.material.truth import load_pictures, load_truth

KINDS: tuple[ClaimKind, ...] = get_args(ClaimKind)
Claims = dict[tuple[str, StatedClaim], Claim]
"""(image path, what is said) -> the judged claim."""


class Stated:
    """What one candidate says: the claims to judge, in order of mention, the objects it names again, and its
    counts."""

    def __init__(self, recipe: Recipe, row: Candidate) -> None:
        text, phrases = row.text, read_text(row.text)
        self.counts = count_phrases(text, phrases, row.num_tokens)
        named = named_instances(phrases)
        self.repeated = [category for category, total in named.items() if total.repeated]
        objects = [StatedClaim("presence", name, "") for name in split_objects(text, recipe.objects_mode)]
        known = {claim.category for claim in objects}
        others = [
            claim
            for claim in claims_in(phrases)
            if claim.kind != "presence"
            and claim.kind in recipe.kinds
            and claim.category in known
            # A number that repetition makes is false by rule, and asked of nobody.
            and not (claim.kind == "number" and claim.category in self.repeated)
        ]
        self.claims = objects + others


def judge_claims(recipe: Recipe, folder: RunFolder) -> Judged:
    """Ask a model about everything that the candidates claim."""
    assert recipe.candidates is not None
    candidates = read_candidates(recipe.candidates)
    stated = stated_by(recipe, candidates)
    wanted = sorted(
        {(image, claim) for row in candidates for image in row.images[:1] for claim in stated[row.id].claims},
        key=lambda both: (both[0], both[1].kind, both[1].category, both[1].value),
    )
    questions = {
        _name(image, claim): Question(ask(claim, recipe.template(claim.kind)), [image])
        for image, claim in wanted
    }
    readers = {
        _name(image, claim): ClaimReader(claim, recipe.template(claim.kind)) for image, claim in wanted
    }
    with asker(recipe, folder) as at_hand:
        answered = ask_claims(recipe, at_hand, questions, readers)
    claims = {
        (image, claim): unjudged(recipe, claim).model_copy(update=answered.values[_name(image, claim)])
        for image, claim in wanted
    }
    found = judged_by_claims(recipe, at_hand.judge, candidates, claims)
    return replace(found, metrics={**found.metrics, **answered.metrics})


def winners_of(candidates: Sequence[Candidate], verdicts: Sequence[Verdict]) -> dict[tuple[str, str], Winner]:
    """(first, second) -> which has the higher score, of each two scored answers to one prompt."""
    scores = {row.candidate_id: row.score for row in verdicts if row.score is not None}
    winners: dict[tuple[str, str], Winner] = {}
    for rows in by_prompt(candidates).values():
        for one, two in combinations([row.id for row in rows if row.id in scores], 2):
            gap = scores[one] - scores[two]
            winners[one, two] = "tie" if gap == 0 else "first" if gap > 0 else "second"
    return winners


def stated_by(recipe: Recipe, candidates: Sequence[Candidate]) -> dict[str, Stated]:
    """Candidate id -> what it claims."""
    return {row.id: Stated(recipe, row) for row in candidates}


def unjudged(recipe: Recipe, claim: StatedClaim) -> Claim:
    """The row of a claim, before anybody judged it."""
    return Claim(
        text=claim_text(claim),
        question=ask(claim, recipe.template(claim.kind)),
        kind=claim.kind,
        category=claim.category,
        value=claim.value,
    )


def judged_by_claims(recipe: Recipe, judge: str, candidates: Sequence[Candidate], claims: Claims) -> Judged:
    """Verdicts from judged claims, with the claims' agreement with the annotations on dev images."""
    stated = stated_by(recipe, candidates)
    made = {
        row.id: [claims[row.images[0], claim] for claim in stated[row.id].claims] if row.images else []
        for row in candidates
    }
    return judged_answers(recipe, judge, candidates, made, list(claims.values()), {})


def judged_answers(
    recipe: Recipe,
    judge: str,
    candidates: Sequence[Candidate],
    made: Mapping[str, Sequence[Claim]],
    claims: Sequence[Claim],
    unsplit: Mapping[str, str],
) -> Judged:
    """Verdicts on answers by their judged claims.

    Args:
        made: candidate id -> its claims.
        claims: all of them, each once a picture.
        unsplit: candidate id -> why nobody knows what it claims.
    """
    stated = stated_by(recipe, candidates)
    agreement = measure_claims(recipe, candidates, made)
    left_out = agreement["left_out"]
    verdicts = []
    for row in candidates:
        said = stated[row.id]
        found = verdict_of(recipe, judge, row, made[row.id], said.repeated, left_out)
        if row.id in unsplit:
            found = found.model_copy(update={"score": None, "unscored_reason": unsplit[row.id]})
        found.meta[COUNTS] = said.counts._asdict()
        verdicts.append(found)
    metrics = _metrics(verdicts, claims) | {"left_out": left_out}
    denied = f"{metrics['denied_share']:.1%} denied"
    scored = metrics["claims"] - metrics["unscored_claims"]
    lines = [
        f"  {scored} of {metrics['claims']} claims judged, "
        f"{denied if scored else 'nothing confirmed or denied'}; "
        f"{metrics['unscored']} of {len(verdicts)} answers unscored, {metrics['repeating']} repeat an object",
        *(f"  {kind} is left out of the score: {why}" for kind, why in left_out.items()),
    ]
    if recipe.labels is not None and not labels_claims(recipe.labels):
        agreement = agreement | measure_choices(recipe, candidates, winners_of(candidates, verdicts))
    extra = {"judge": judge, "kind": recipe.kind, "objects_mode": recipe.objects_mode}
    return Judged(verdicts, agreement | extra, metrics, lines)


def measure_claims(
    recipe: Recipe, candidates: Sequence[Candidate], made: Mapping[str, Sequence[Claim]]
) -> dict[str, Any]:
    """Agreement with the annotations: of presence, `by_kind`, and which kinds are `left_out` with the reason.

    Args:
        made: candidate id -> its judged claims.
    """
    by_labels = labels_claims(recipe.labels)
    if by_labels:
        dev = labelled_claims(candidates, made, read_labels(ClaimLabel, recipe.labels), recipe.labels)
    else:
        objects, pictures = load_truth(recipe.truth, recipe.objects_mode), load_pictures(recipe.truth)
        decide = _split_holds if recipe.splitter == "model" else holds
        dev = dev_claims(candidates, made, objects, pictures, decide)
    asked = {claim.kind for claims in made.values() for claim in claims} | {"presence"}
    by_kind = measure_kinds(
        {kind: dev.get(kind, []) for kind in get_args(ClaimKind) if kind in asked}, recipe.seed
    )
    # The oracle is the truth: nothing of it is left out, however little of it stands on dev.
    least = 0.0 if recipe.kind == "oracle" else recipe.min_kind_agreement
    whole = by_kind["presence"]
    if by_labels or recipe.splitter == "model":  # no kind carries the others
        whole = measure_agreement([item for claims in dev.values() for item in claims], recipe.seed)
    found = whole | {"by_kind": by_kind, "left_out": unfit_kinds(by_kind, least)}
    return found | ({"by_labels": True} if by_labels else {})


def labelled_claims(
    candidates: Sequence[Candidate],
    made: Mapping[str, Sequence[Claim]],
    labels: Sequence[ClaimLabel],
    path: Path | None,
) -> dict[ClaimKind, list[tuple[str, bool, bool]]]:
    """Kind -> (image, truly so, judge says so) of each claim that people labelled.

    Raises:
        AlignError: no label is of a claim that was judged.
    """
    wanted = {(label.id, label.claim.strip().lower()): label.holds for label in labels}
    found: dict[ClaimKind, list[tuple[str, bool, bool]]] = {}
    matched = 0
    for row in candidates:
        for claim in {claim.text: claim for claim in made[row.id]}.values():
            holds_true = wanted.get((row.id, claim.text.strip().lower()))
            matched += holds_true is not None
            if holds_true is not None and claim.supported is not None:
                cluster = row.images[0] if row.images else row.id
                found.setdefault(claim.kind, []).append((cluster, holds_true, claim.supported))
    if not matched:
        raise AlignError(
            "no label is of a claim that was judged",
            where=str(path),
            fix="check their ids and their claims' texts",
        )
    if matched < len(wanted):
        say(f"  {len(wanted) - matched} of {len(wanted)} labels are of no claim that was judged")
    return found


def dev_claims(
    candidates: Sequence[Candidate],
    made: Mapping[str, Sequence[Claim]],
    objects: Mapping[int, set[str]],
    pictures: Mapping[int, PictureTruth],
    decide: Callable[[Claim, Collection[str], PictureTruth | None], bool | None],
) -> dict[ClaimKind, list[tuple[str, bool, bool]]]:
    """Kind -> (image, truly so, judge says so) of each distinct judged claim on annotated dev images.

    Left out are claims of which the annotations don't tell, and what is said of an object that the judge
    denies: that is not counted anyway.

    Args:
        decide: whether a claim is true of a picture with these objects; None where the annotations don't say.
    """
    found: dict[tuple[str, ...], tuple[ClaimKind, bool, bool]] = {}
    for row in candidates:
        image_id = row.meta.get("image_id")
        if row.meta.get("split") != "dev" or image_id is None or image_id not in objects:
            continue
        there = {claim.category for claim in made[row.id] if claim.kind == "presence" and claim.supported}
        for claim in made[row.id]:
            truth = decide(claim, objects[image_id], pictures.get(image_id))
            if truth is not None and claim.supported is not None and is_judged(claim, there):
                key = (row.images[0], claim.kind, claim.category, claim.value, claim.text)
                found[key] = (claim.kind, truth, claim.supported)
    by_kind: dict[ClaimKind, list[tuple[str, bool, bool]]] = {}
    for key, (kind, truth, says_yes) in sorted(found.items()):
        by_kind.setdefault(kind, []).append((key[0], truth, says_yes))
    return by_kind


def holds(claim: Claim | StatedClaim, objects: Collection[str], picture: PictureTruth | None) -> bool | None:
    """Whether a claim is true of a picture; None where the annotations don't say.

    Args:
        objects: that are there, as CHAIR counts them; presence is theirs to decide.
    """
    if claim.kind == "presence":
        return claim.category in objects
    if picture is None or claim.kind not in CLAIM_KINDS:
        return None
    return check(StatedClaim(claim.kind, claim.category, claim.value), picture)


def _split_holds(claim: Claim, objects: Collection[str], picture: PictureTruth | None) -> bool | None:
    return split_truth(claim.kind, claim.text, objects, picture)


def verdict_of(
    recipe: Recipe,
    judge: str,
    row: Candidate,
    made: Sequence[Claim],
    repeated: Sequence[str],
    left_out: Collection[ClaimKind],
) -> Verdict:
    """The verdict on one answer, from its judged claims."""
    counts = count_claims(made, left_out)
    if recipe.score == "chair":
        score, reason = score_by_mentions(find_objects(row.text, recipe.objects_mode), made)
    else:
        scores = recipe.claim_scores if recipe.score == "utility" else None
        score, reason = score_answer(made, counts, len(repeated), scores)
    return Verdict(
        candidate_id=row.id,
        prompt_id=row.prompt_id,
        judge=judge,
        prompt_sha256=recipe.claims_digest(),
        score=score,
        unscored_reason=reason,
        claims=list(made),
        counts=counts,
        repeated=list(repeated),
        meta={"split": row.meta.get("split", "")},
    )


def _name(image: str, claim: StatedClaim) -> str:
    return "\n".join((image, claim.kind, claim.category, claim.value))


def _metrics(verdicts: Sequence[Verdict], claims: Sequence[Claim]) -> dict[str, Any]:
    scored = [claim for claim in claims if claim.supported is not None]
    kinds = sorted({claim.kind for claim in claims})
    return {
        "verdicts": len(verdicts),
        "unscored": sum(verdict.score is None for verdict in verdicts),
        "repeating": sum(bool(verdict.repeated) for verdict in verdicts),
        "claims": len(claims),
        "claims_by_kind": {kind: sum(claim.kind == kind for claim in claims) for kind in kinds},
        "unscored_claims": len(claims) - len(scored),
        "denied_share": round(sum(not claim.supported for claim in scored) / max(len(scored), 1), 4),
    }
