"""Judge sampled answers claim by claim, through vLLM, and measure the judge against the annotations.

Every object that an answer mentions becomes a yes/no question to the judge, asked once per image; the
answer's score is minus the number of claims that the judge denies. Writes `verdicts.jsonl` (one a
candidate, with its claims) and `agreement.json`: on dev images, how often the judge is right.

  kind: claims    the judge is a model, usually the policy itself
  kind: oracle    the annotations judge; for comparison, never for training data

Next: `align pairs`, which refuses a judge that is near chance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from align.answer_store import AnswerStore, ask_stored
from align.client import ChatRequest, Failure, Reply, Sampling, content_key
from align.config import StageRecipe
from align.digest import digest_json
from align.errors import AlignError
from align.images import image_sha256, resolve_image
from align.model_digest import as_checkpoint
from align.objects import Mode
from align.progress import say
from align.run import RunFolder
from align.schema import Candidate, Claim, Message, Verdict, read_rows, write_rows
from align.serve import ServeSettings, serve
from data_tools.agreement import measure_agreement, show_agreement
from data_tools.claims import DEFAULT_QUESTION, ask_about, read_yes_no, score_claims, split_objects
from data_tools.sample import check_failures
from data_tools.truth import Annotations, load_truth, truth_inputs

Claims = dict[tuple[str, str], Claim]
"""(image path, object) -> the judged claim."""


class Recipe(StageRecipe):
    """The recipe of `align judge`."""

    name: str = "judge"
    kind: Literal["claims", "oracle"] = Field(
        default="claims", description="who judges: a model, or the truth"
    )
    model: str | None = Field(
        default=None, description="the judge's checkpoint folder or hub id (kind: claims)"
    )
    candidates: Path = Field(description="candidates.jsonl of the sample stage")
    image_root: Path = Field(description="folder that image paths are relative to")
    question: str = Field(default=DEFAULT_QUESTION, description="put to the judge; {object} is `a dog`")
    splitter: Literal["objects"] = Field(
        default="objects", description="claims are the COCO objects mentioned"
    )
    objects_mode: Mode = Field(default="strict", description="how objects are found in texts")
    truth: list[Annotations] = Field(
        default=[], description="annotations of the dev images (kind oracle: of all images)"
    )
    serve: ServeSettings = ServeSettings()
    concurrency: int = Field(default=64, ge=1, description="questions asked at the same time")
    max_failed: float = Field(default=0.02, ge=0, le=1, description="share of failed requests to accept")

    @model_validator(mode="after")
    def _complete(self) -> Recipe:
        if self.kind == "claims" and not self.model:
            raise ValueError("kind claims needs `model`, the judge's checkpoint")
        if self.kind == "oracle" and not self.truth:
            raise ValueError("kind oracle needs `truth`")
        if "{object}" not in self.question:
            raise ValueError("`question` must contain {object}")
        return self


def run(recipe: Recipe) -> RunFolder:
    """Judge all candidates; byte-equal for the same recipe and inputs.

    Raises:
        AlignError: no candidates, a missing image, a server that dies, too many failed requests, or an
            oracle without annotations of an image.
    """
    inputs = {"candidates": recipe.candidates, **truth_inputs(recipe.truth)}
    if recipe.kind == "claims":
        inputs["model"] = as_checkpoint(recipe.model or "")
    folder = RunFolder.open(recipe, inputs)
    if folder.is_complete:
        return folder
    with folder:
        candidates = read_candidates(recipe.candidates)
        truth = load_truth(recipe.truth, recipe.objects_mode)
        objects = {row.id: split_objects(row.text, recipe.objects_mode) for row in candidates}
        if recipe.kind == "oracle":
            judge, claims = "oracle", _oracle_claims(recipe, candidates, objects, truth)
        else:
            judge, claims = _ask_judge(recipe, inputs["model"], folder, candidates, objects)
        verdicts = [_verdict(recipe, judge, row, objects[row.id], claims) for row in candidates]
        write_rows(folder.work / "verdicts.jsonl", verdicts)
        agreement = measure_agreement(_dev_claims(candidates, objects, claims, truth), recipe.seed)
        agreement |= {"judge": judge, "kind": recipe.kind, "objects_mode": recipe.objects_mode}
        (folder.work / "agreement.json").write_text(json.dumps(agreement, indent=1, sort_keys=True) + "\n")
        metrics = _metrics(verdicts, claims)
        say(
            f"  {metrics['claims']} claims judged, {metrics['denied_share']:.1%} denied; "
            f"{metrics['unscored']} of {len(verdicts)} answers unscored"
        )
        show_agreement(agreement)
        folder.complete(metrics=metrics | {"agreement": agreement}, next_step="align pairs RECIPE")
    return folder


def read_candidates(path: Path) -> list[Candidate]:
    """Candidates by id.

    Raises:
        AlignError: none, or an id that occurs twice.
    """
    rows = {row.id: row for row in read_rows(Candidate, path)}
    if not rows:
        raise AlignError("no candidates", where=str(path), fix="run the sample stage again")
    if len(rows) != sum(1 for _ in read_rows(Candidate, path)):
        raise AlignError("duplicate candidate ids", where=str(path))
    return [rows[row_id] for row_id in sorted(rows)]


def _oracle_claims(
    recipe: Recipe,
    candidates: Sequence[Candidate],
    objects: Mapping[str, list[str]],
    truth: dict[int, set[str]],
) -> Claims:
    claims: Claims = {}
    for row in candidates:
        image_id = row.meta.get("image_id")
        if image_id not in truth:
            raise AlignError(
                f"no annotations of image {image_id}", where=row.id, fix="add its file to `truth`"
            )
        for name in objects[row.id]:
            there = float(name in truth[image_id])
            question = ask_about(name, recipe.question)
            claims[row.images[0], name] = Claim(text=name, question=question, p_yes=there, p_no=1 - there)
    return claims


def _ask_judge(
    recipe: Recipe,
    checkpoint: str | Path,
    folder: RunFolder,
    candidates: Sequence[Candidate],
    objects: Mapping[str, list[str]],
) -> tuple[str, Claims]:
    """The judge's id and its claims; each (image, object) is asked once, image by image."""
    wanted = sorted(
        {(image, name) for row in candidates for image in row.images[:1] for name in objects[row.id]}
    )
    with (
        serve(checkpoint, recipe.serve, folder.logs) as server,
        AnswerStore(folder.scratch / "answers.jsonl") as store,
    ):
        keys: dict[tuple[str, str], str] = {}
        requests: dict[str, ChatRequest] = {}
        shas: dict[str, str] = {}
        for image, name in wanted:
            path = resolve_image(recipe.image_root, image)
            shas[image] = shas.get(image) or image_sha256(path)
            message = Message(role="user", content=ask_about(name, recipe.question))
            request = ChatRequest([message], [path], Sampling(temperature=0.0, max_tokens=1), top_logprobs=20)
            keys[image, name] = content_key(server.digest, request, [shas[image]])
            requests[keys[image, name]] = request
        replies = ask_stored(server, store, requests, "judging", recipe.concurrency)
    check_failures(replies, recipe.max_failed)
    claims = {
        (image, name): _claim(name, ask_about(name, recipe.question), replies[key])
        for (image, name), key in keys.items()
    }
    return f"claims/{server.digest[:16]}", claims


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


def _dev_claims(
    candidates: Sequence[Candidate],
    objects: Mapping[str, list[str]],
    claims: Claims,
    truth: dict[int, set[str]],
) -> list[tuple[str, bool, bool]]:
    """(image, truly there, judge says so) of each distinct scored claim on annotated dev images."""
    found: dict[tuple[str, str], tuple[str, bool, bool]] = {}
    for row in candidates:
        image_id = row.meta.get("image_id")
        if row.meta.get("split") != "dev" or image_id not in truth:
            continue
        for name in objects[row.id]:
            says_yes = claims[row.images[0], name].supported
            if says_yes is not None:
                found[row.images[0], name] = (row.images[0], name in truth[image_id], says_yes)
    return [found[key] for key in sorted(found)]


def _metrics(verdicts: Sequence[Verdict], claims: Claims) -> dict[str, Any]:
    scored = [claim for claim in claims.values() if claim.supported is not None]
    return {
        "verdicts": len(verdicts),
        "unscored": sum(verdict.score is None for verdict in verdicts),
        "claims": len(claims),
        "unscored_claims": len(claims) - len(scored),
        "denied_share": round(sum(not claim.supported for claim in scored) / max(len(scored), 1), 4),
    }
