"""Kind oracle: the annotations judge each claim, objects as CHAIR does; for comparison, not for training.

Candidates are gone through twice, one by one: for the agreement on dev, then for the verdicts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from align.claims import PictureTruth
from align.errors import AlignError
from align.progress import track
from align.rows.schema import Candidate, Claim, Verdict
from align.run.folder import RunFolder
from data_tools.judge.asking import Judged, read_candidates
from data_tools.judge.claims import (
    Claims,
    Stated,
    holds,
    judged_by_claims,
    measure_claims,
    stated_by,
    unjudged,
    verdict_of,
)
from data_tools.judge.recipe import Recipe
from data_tools.material.answer_counts import COUNTS
from data_tools.material.rows_in_order import RowsInOrder
from data_tools.material.truth import load_pictures, load_truth


@dataclass(frozen=True)
class _Truth:
    """What the annotations say."""

    objects: Mapping[int, set[str]]
    pictures: Mapping[int, PictureTruth]

    @classmethod
    def of(cls, recipe: Recipe) -> _Truth:
        return cls(load_truth(recipe.truth, recipe.objects_mode), load_pictures(recipe.truth))

    def claims(self, recipe: Recipe, row: Candidate, stated: Stated) -> list[Claim]:
        """What a candidate claims, looked up; a claim of which nothing is known stays unscored.

        Raises:
            AlignError: an image without annotations.
        """
        image_id: Any = row.meta.get("image_id")
        if image_id not in self.objects:
            raise AlignError(
                f"no annotations of image {image_id}", where=row.id, fix="add its file to `truth`"
            )
        found = []
        for said in stated.claims:
            true = holds(said, self.objects[image_id], self.pictures.get(image_id))
            known = {} if true is None else {"p_yes": float(true), "p_no": float(not true)}
            found.append(unjudged(recipe, said).model_copy(update=known))
        return found


@dataclass
class _Counts:
    """What the metrics count; a claim is counted once a picture."""

    verdicts: int = 0
    unscored: int = 0
    repeating: int = 0
    seen: set[int] = field(default_factory=set)
    by_kind: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[bool | None] = field(default_factory=Counter)

    def add(self, image: str, verdict: Verdict) -> None:
        """Count one answer."""
        self.verdicts += 1
        self.unscored += verdict.score is None
        self.repeating += bool(verdict.repeated)
        for claim in verdict.claims:
            key = hash((image, claim.kind, claim.category, claim.value))
            if key not in self.seen:
                self.seen.add(key)
                self.by_kind[claim.kind] += 1
                self.outcomes[claim.supported] += 1

    def metrics(self) -> dict[str, Any]:
        """As of the kind claims."""
        scored = self.outcomes[True] + self.outcomes[False]
        return {
            "verdicts": self.verdicts,
            "unscored": self.unscored,
            "repeating": self.repeating,
            "claims": self.by_kind.total(),
            "claims_by_kind": dict(sorted(self.by_kind.items())),
            "unscored_claims": self.outcomes[None],
            "denied_share": round(self.outcomes[False] / max(scored, 1), 4),
        }


def judge_oracle(recipe: Recipe, folder: RunFolder) -> Judged:
    """Look every claim up in the annotations; one of which they say nothing is unscored.

    Metrics and lines of the result are filled while the verdicts are gone through.

    Raises:
        AlignError: no candidates, two of one id, or an image without annotations.
    """
    assert recipe.candidates is not None
    truth = _Truth.of(recipe)
    if recipe.labels is not None:
        return _with_labels(recipe, truth)
    rows = RowsInOrder(Candidate, recipe.candidates, ("id",))
    if not rows.count:
        raise AlignError("no candidates", where=str(recipe.candidates), fix="run the sample stage again")
    agreement = _agreement(recipe, rows, truth)
    metrics: dict[str, Any] = {}
    lines: list[str] = []
    return Judged(_verdicts(recipe, rows, truth, agreement, metrics, lines), agreement, metrics, lines)


def _agreement(recipe: Recipe, rows: RowsInOrder[Candidate], truth: _Truth) -> dict[str, Any]:
    """Measured on the dev candidates, which alone are held."""
    dev: list[Candidate] = []
    made: dict[str, list[Claim]] = {}
    kinds: dict[str, Claim] = {}
    for row in track(rows, "measuring", rows.count, "answers"):
        claims = truth.claims(recipe, row, Stated(recipe, row)) if row.images else []
        kinds |= {claim.kind: claim for claim in claims}
        if row.meta.get("split") == "dev":
            dev.append(row)
            made[row.id] = claims
    # What kinds there are is told by all claims, and measured on dev.
    found = measure_claims(recipe, dev, made | {"": list(kinds.values())})
    return found | {"judge": "oracle", "kind": recipe.kind, "objects_mode": recipe.objects_mode}


def _verdicts(
    recipe: Recipe,
    rows: RowsInOrder[Candidate],
    truth: _Truth,
    agreement: Mapping[str, Any],
    metrics: dict[str, Any],
    lines: list[str],
) -> Iterator[Verdict]:
    left_out, counts = agreement["left_out"], _Counts()
    for row in track(rows, "judging", rows.count, "answers"):
        said = Stated(recipe, row)
        claims = truth.claims(recipe, row, said) if row.images else []
        verdict = verdict_of(recipe, "oracle", row, claims, said.repeated, left_out)
        verdict.meta[COUNTS] = said.counts._asdict()
        counts.add(row.images[0] if row.images else "", verdict)
        yield verdict
    metrics |= counts.metrics() | {"left_out": left_out}
    lines.append(
        f"  {metrics['claims']} claims judged, {metrics['denied_share']:.1%} denied; "
        f"{metrics['unscored']} of {metrics['verdicts']} answers unscored, "
        f"{metrics['repeating']} repeat an object"
    )
    lines += [f"  {kind} is left out of the score: {why}" for kind, why in left_out.items()]


def _with_labels(recipe: Recipe, truth: _Truth) -> Judged:
    """Measured by people's labels, which may be of any candidate: all are held."""
    assert recipe.candidates is not None
    candidates = read_candidates(recipe.candidates)
    stated = stated_by(recipe, candidates)
    claims: Claims = {}
    for row in candidates:
        found = truth.claims(recipe, row, stated[row.id])
        claims |= {
            (row.images[0], said): claim for said, claim in zip(stated[row.id].claims, found, strict=True)
        }
    return judged_by_claims(recipe, "oracle", candidates, claims)
