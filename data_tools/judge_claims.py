"""Kind claims: every object that an answer mentions becomes a yes/no question to the judge (RLAIF-V).

Each (image, object) is asked once; an answer's score is minus the number of its claims that are denied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from align.client import Failure, Reply
from align.digest import digest_json
from align.objects import Mode
from align.run import RunFolder
from align.schema import Candidate, Claim, Verdict
from data_tools.agreement import measure_agreement
from data_tools.claims import ask_about, read_yes_no, score_claims, split_objects
from data_tools.judge_recipe import Recipe
from data_tools.judged import Judged, Question, ask_all, read_candidates
from data_tools.truth import load_truth

Claims = dict[tuple[str, str], Claim]
"""(image path, object) -> the judged claim."""


def judge_claims(recipe: Recipe, folder: RunFolder) -> Judged:
    """Ask a model about every object that the candidates mention."""
    assert recipe.candidates is not None
    candidates = read_candidates(recipe.candidates)
    objects = mentioned(candidates, recipe.objects_mode)
    wanted = sorted(
        {(image, name) for row in candidates for image in row.images[:1] for name in objects[row.id]}
    )
    questions = {
        f"{image}\n{name}": Question(ask_about(name, recipe.question), [image]) for image, name in wanted
    }
    judge, replies = ask_all(recipe, folder, questions, max_tokens=1, top_logprobs=20)
    claims = {
        (image, name): _claim(name, ask_about(name, recipe.question), replies[f"{image}\n{name}"])
        for image, name in wanted
    }
    return judged_by_claims(recipe, judge, candidates, claims)


def mentioned(candidates: Sequence[Candidate], mode: Mode) -> dict[str, list[str]]:
    """Candidate id -> the objects that it claims."""
    return {row.id: split_objects(row.text, mode) for row in candidates}


def judged_by_claims(recipe: Recipe, judge: str, candidates: Sequence[Candidate], claims: Claims) -> Judged:
    """Verdicts from judged claims, with the claims' agreement with the annotations on dev images."""
    objects = mentioned(candidates, recipe.objects_mode)
    truth = load_truth(recipe.truth, recipe.objects_mode)
    verdicts = [_verdict(recipe, judge, row, objects[row.id], claims) for row in candidates]
    agreement = measure_agreement(dev_claims(candidates, objects, claims, truth), recipe.seed)
    metrics = _metrics(verdicts, claims)
    line = (
        f"  {metrics['claims']} claims judged, {metrics['denied_share']:.1%} denied; "
        f"{metrics['unscored']} of {len(verdicts)} answers unscored"
    )
    extra = {"judge": judge, "kind": recipe.kind, "objects_mode": recipe.objects_mode}
    return Judged(verdicts, agreement | extra, metrics, [line])


def dev_claims(
    candidates: Sequence[Candidate],
    objects: Mapping[str, list[str]],
    claims: Claims,
    truth: Mapping[int, set[str]],
) -> list[tuple[str, bool, bool]]:
    """(image, truly there, judge says so) of each distinct scored claim on annotated dev images."""
    found: dict[tuple[str, str], tuple[str, bool, bool]] = {}
    for row in candidates:
        image_id = row.meta.get("image_id")
        if row.meta.get("split") != "dev" or image_id is None or image_id not in truth:
            continue
        for name in objects[row.id]:
            says_yes = claims[row.images[0], name].supported
            if says_yes is not None:
                found[row.images[0], name] = (row.images[0], name in truth[image_id], says_yes)
    return [found[key] for key in sorted(found)]


def _claim(name: str, question: str, reply: Reply | Failure) -> Claim:
    found = read_yes_no(reply.choices[0].first_logprobs) if isinstance(reply, Reply) else None
    if found is None:
        return Claim(text=name, question=question)
    return Claim(text=name, question=question, p_yes=round(found[0], 6), p_no=round(found[1], 6))


def _verdict(recipe: Recipe, judge: str, row: Candidate, objects: list[str], claims: Claims) -> Verdict:
    made = [claims[row.images[0], name] for name in objects] if row.images else []
    score, reason = score_claims(made)
    return Verdict(
        candidate_id=row.id,
        prompt_id=row.prompt_id,
        judge=judge,
        prompt_sha256=digest_json([recipe.question, recipe.splitter, recipe.objects_mode]),
        score=score,
        unscored_reason=reason,
        claims=made,
        meta={
            "supported": sum(claim.supported is True for claim in made),
            "split": row.meta.get("split", ""),
        },
    )


def _metrics(verdicts: Sequence[Verdict], claims: Claims) -> dict[str, Any]:
    scored = [claim for claim in claims.values() if claim.supported is not None]
    return {
        "verdicts": len(verdicts),
        "unscored": sum(verdict.score is None for verdict in verdicts),
        "claims": len(claims),
        "unscored_claims": len(claims) - len(scored),
        "denied_share": round(sum(not claim.supported for claim in scored) / max(len(scored), 1), 4),
    }
