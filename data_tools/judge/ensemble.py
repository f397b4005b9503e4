"""Kind ensemble: several judges' verdicts on the same answers made into one, with how far they agree.

Agreement is Cohen's kappa between each two judges on every couple of answers to one prompt (first better,
second better, tie), so that judges on different scales can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from align.digest import digest_json
from align.errors import AlignError
from align.judging.kappa import agreement_of
from align.rows.schema import Candidate, Claim, Verdict, read_rows
from align.run.folder import RunFolder
from data_tools.judge.asking import Judged, by_prompt, read_candidates
from data_tools.judge.calibration import Winner
from data_tools.judge.claims import measure_claims, verdict_of
from data_tools.judge.pairwise import mean_outcome, measure_choices, outcomes_of
from data_tools.judge.recipe import Recipe

Judges = Mapping[str, Mapping[str, Verdict]]
"""Judge's name in the recipe -> candidate id -> its verdict."""


def judge_ensemble(recipe: Recipe, folder: RunFolder) -> Judged:
    """Combine the verdicts; an answer that any judge left unscored is unscored.

    Raises:
        AlignError: a judge without a verdict on a candidate, or claims that differ between judges.
    """
    assert recipe.candidates is not None
    candidates = read_candidates(recipe.candidates)
    judges = {
        name: _verdicts_of(name, path, candidates) for name, path in sorted(recipe.ensemble.verdicts.items())
    }
    couples = _couples(candidates, judges)
    votes = {name: _winners(couples, verdicts) for name, verdicts in judges.items()}
    verdicts = _combine(recipe, candidates, judges, votes)
    measured: dict[str, Any] = {}
    if recipe.ensemble.combine == "claims":
        verdicts, measured = _score_claims(recipe, candidates, verdicts)
    between = {
        f"{a} and {b}": agreement_of([(votes[a][couple], votes[b][couple]) for couple in couples])
        for a, b in combinations(judges, 2)
    }
    scored = {row.candidate_id: row for row in verdicts if row.score is not None}
    winners = _winners([couple for couple in couples if set(couple) <= set(scored)], scored)
    if recipe.ensemble.combine == "claims" and recipe.labels is None:
        agreement = measured
    else:
        agreement = measure_choices(recipe, candidates, winners)
    agreement |= {"judge": _name(recipe), "kind": recipe.kind, "between_judges": between}
    unscored = len(verdicts) - len(scored)
    lines = [f"  {len(judges)} judges, {len(verdicts)} answers, {unscored} unscored"]
    for names, found in between.items():
        said = (
            f"kappa {found['kappa']}, {found['agreement']:.1f}% equal" if found["n"] else "nothing in common"
        )
        lines.append(f"    {names}: {said} on {found['n']} couples of answers")
    metrics = {"verdicts": len(verdicts), "unscored": unscored, "between_judges": between}
    return Judged(verdicts, agreement, metrics, lines)


def _name(recipe: Recipe) -> str:
    return f"ensemble/{recipe.ensemble.combine}({', '.join(sorted(recipe.ensemble.verdicts))})"


def _verdicts_of(name: str, path: Path, candidates: Sequence[Candidate]) -> dict[str, Verdict]:
    found = {row.candidate_id: row for row in read_rows(Verdict, path)}
    missing = next((row.id for row in candidates if row.id not in found), None)
    if missing is not None:
        raise AlignError(
            f"judge {name} has no verdict on candidate {missing}",
            where=str(path),
            fix="all judges of an ensemble judge the same candidates",
        )
    return found


def _couples(candidates: Sequence[Candidate], judges: Judges) -> list[tuple[str, str]]:
    """Every two answers to one prompt that all judges have scored."""
    found = []
    for rows in by_prompt(candidates).values():
        scored = [
            row.id for row in rows if all(verdicts[row.id].score is not None for verdicts in judges.values())
        ]
        found += list(combinations(scored, 2))
    return found


def _winners(
    couples: Sequence[tuple[str, str]], verdicts: Mapping[str, Verdict]
) -> dict[tuple[str, str], Winner]:
    winners: dict[tuple[str, str], Winner] = {}
    for first, second in couples:
        gap = (verdicts[first].score or 0.0) - (verdicts[second].score or 0.0)
        winners[first, second] = "tie" if gap == 0 else "first" if gap > 0 else "second"
    return winners


def _combine(
    recipe: Recipe,
    candidates: Sequence[Candidate],
    judges: Judges,
    votes: Mapping[str, Mapping[tuple[str, str], Winner]],
) -> list[Verdict]:
    outcomes: dict[str, list[int]] = {}
    for winners in votes.values():
        for name, values in outcomes_of(winners).items():
            outcomes.setdefault(name, []).extend(values)
    verdicts = []
    for row in candidates:
        own = {name: found[row.id] for name, found in judges.items()}
        claims: list[Claim] = []
        silent = [
            f"{name}: {verdict.unscored_reason}" for name, verdict in own.items() if verdict.score is None
        ]
        if silent:
            score, reason = None, f"by {silent[0]}"
        elif recipe.ensemble.combine == "claims":
            claims = _mean_claims(row.id, own)
            score, reason = 0.0, ""  # by `_score_claims`, once it is known which kinds count
        elif recipe.ensemble.combine == "votes":
            score, reason = mean_outcome(outcomes.get(row.id, []))
        else:
            score, reason = round(sum(verdict.score or 0.0 for verdict in own.values()) / len(own), 4), ""
        meta: dict[str, Any] = {
            "scores": {name: verdict.score for name, verdict in own.items()},
            "split": row.meta.get("split", ""),
        }
        verdicts.append(
            Verdict(
                candidate_id=row.id,
                prompt_id=row.prompt_id,
                judge=_name(recipe),
                prompt_sha256=digest_json({name: verdict.prompt_sha256 for name, verdict in own.items()}),
                score=score,
                unscored_reason=reason,
                claims=claims,
                repeated=next(iter(own.values())).repeated,
                meta=meta,
            )
        )
    return verdicts


def _mean_claims(candidate_id: str, verdicts: Mapping[str, Verdict]) -> list[Claim]:
    """Each claim with the judges' mean probabilities; all judges must have judged the same claims."""
    texts = {name: [claim.text for claim in verdict.claims] for name, verdict in verdicts.items()}
    first = next(iter(texts.values()))
    other = next((name for name, own in texts.items() if own != first), None)
    if other is not None:
        raise AlignError(
            f"judge {other} has judged other claims than {next(iter(texts))}",
            where=candidate_id,
            fix="ensemble.combine: claims needs judges of kind claims with one splitter; else use votes",
        )
    claims = []
    for judged in zip(*(verdict.claims for verdict in verdicts.values()), strict=True):
        known = all(claim.supported is not None for claim in judged)
        p_yes, p_no = (
            round(sum((claim.p_yes if side else claim.p_no) or 0.0 for claim in judged) / len(judged), 6)
            if known
            else None
            for side in (True, False)
        )
        claims.append(judged[0].model_copy(update={"p_yes": p_yes, "p_no": p_no}))
    return claims


def _score_claims(
    recipe: Recipe, candidates: Sequence[Candidate], verdicts: Sequence[Verdict]
) -> tuple[list[Verdict], dict[str, Any]]:
    """Verdicts scored by their mean claims, and the agreement of these with the annotations."""
    agreement = measure_claims(recipe, candidates, {row.candidate_id: row.claims for row in verdicts})
    scored = []
    for row, verdict in zip(candidates, verdicts, strict=True):
        if verdict.score is not None:
            name, left_out = verdict.judge, agreement["left_out"]
            found = verdict_of(recipe, name, row, verdict.claims, verdict.repeated, left_out)
            changes = {"score": found.score, "unscored_reason": found.unscored_reason, "counts": found.counts}
            verdict = verdict.model_copy(update=changes)
        scored.append(verdict)
    return scored, agreement
