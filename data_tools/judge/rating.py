"""Kind rating: a rubric of accuracy, completeness and relevance, for answers or instruction rows.

The judge must reply with the three numbers and nothing that contradicts them (`align.judging.ratings`); any
other reply leaves the answer unscored with its reason, and if most are such, the stage fails. Of instruction
rows, those rated `keep_at_least` or better are written out again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.errors import AlignError
from align.judging.ratings import is_chinese, read_ratings
from align.judging.replies import Read
from align.judging.wording import fill, spoken, wording_digest
from align.rows.schema import BaseRow, Candidate, Message, SFTRow, Verdict, read_rows, write_rows
from align.rows.tally import Tally
from align.run.folder import RunFolder
from align.run.stage import open_quarantine, write_dropped
from align.serving.client import Failure, Reply
from data_tools.judge.asking import (
    Judged,
    Question,
    ask_all,
    check_read,
    left_out,
    raw,
    read_candidates,
    why_unread,
)
from data_tools.judge.calibration import RatingLabel, calibrate_ratings, invented, read_labels
from data_tools.judge.recipe import Recipe
from data_tools.material.truth import load_truth

SIDES = ("accuracy", "completeness", "relevance")
VERSION = "rating-2"
PATTERN = r"\n".join(f"{side}: [1-5]" for side in SIDES)


@dataclass(frozen=True)
class Rated:
    """An answer to rate: a candidate's, or the assistant's part of an instruction row."""

    id: str
    prompt_id: str
    images: Sequence[str]
    messages: Sequence[Message]
    meta: Mapping[str, Any]


def judge_rating(recipe: Recipe, folder: RunFolder) -> Judged:
    """Rate every answer; with `rows`, write the instruction rows that pass."""
    rows = list(_read_rows(recipe, folder))
    answers = [_rated(row) for row in rows]
    questions = {
        item.id: Question(fill(recipe.rating.prompt, {"conversation": spoken(item.messages)}), item.images)
        for item in answers
    }
    judge, replies = ask_all(recipe, folder, questions, recipe.rating.max_tokens, pattern=PATTERN)
    verdicts = [_verdict(recipe, judge, item, replies[item.id]) for item in answers]
    reasons = [verdict.unscored_reason for verdict in verdicts]
    check_read(recipe, judge, [replies[item.id] for item in answers], reasons, "rating.max_tokens")
    lines = []
    metrics: dict[str, Any] = {
        "verdicts": len(verdicts),
        "unscored": sum(verdict.score is None for verdict in verdicts),
    }
    metrics |= left_out(replies.values())
    if recipe.rows is not None:
        kept = _keep(recipe, folder, [row for row in rows if isinstance(row, SFTRow)], verdicts)
        metrics["kept"] = kept
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    metrics["mean_score"] = round(sum(scores) / max(len(scores), 1), 4)
    lines.append(
        f"  {len(scores)} of {len(verdicts)} answers rated, {metrics['mean_score']:.2f} on average; "
        f"{metrics['unscored']} unscored"
    )
    agreement = _calibrate(recipe, rows, verdicts)
    return Judged(verdicts, agreement | {"judge": judge, "kind": recipe.kind}, metrics, lines)


def _read_rows(recipe: Recipe, folder: RunFolder) -> Sequence[Candidate | SFTRow]:
    if recipe.candidates is not None:
        return read_candidates(recipe.candidates)
    assert recipe.rows is not None
    with open_quarantine(folder, "instruction rows") as bad:
        rows = {row.id: row for row in read_rows(SFTRow, recipe.rows, bad.refuse)}
    if not rows:
        raise AlignError("no instruction rows", where=str(recipe.rows), fix="see quarantine.jsonl")
    return list(rows.values())


def _rated(row: Candidate | SFTRow) -> Rated:
    if isinstance(row, SFTRow):
        return Rated(row.id, row.id, row.images, row.messages, row.meta)
    said = Message(role="assistant", content=row.text)
    return Rated(row.id, row.prompt_id, row.images, [*row.prompt, said], row.meta)


def _verdict(recipe: Recipe, judge: str, item: Rated, reply: Reply | Failure) -> Verdict:
    text = raw(reply)
    read = Read(None) if text is None else read_ratings(text, SIDES, chinese=is_chinese(recipe.rating.prompt))
    ratings = read.verdict
    score = None
    if ratings is not None:
        numbers = list(ratings.values())
        score = float(min(numbers)) if recipe.rating.combine == "min" else round(sum(numbers) / 3, 4)
    return Verdict(
        candidate_id=item.id,
        prompt_id=item.prompt_id,
        judge=judge,
        prompt_sha256=wording_digest(recipe.rating.prompt, VERSION),
        score=score,
        unscored_reason=why_unread(reply, read),
        meta={
            "ratings": ratings,
            "reply": text,
            "version": VERSION,
            "split": item.meta.get("split", ""),
        },
    )


def _keep(recipe: Recipe, folder: RunFolder, rows: Sequence[SFTRow], verdicts: Sequence[Verdict]) -> int:
    """Write `instructions.parquet` and `dropped.json`; how many rows passed.

    Raises:
        AlignError: none did.
    """
    tally = Tally("instruction rows")
    kept: list[BaseRow] = []
    for row, verdict in zip(rows, verdicts, strict=True):
        if verdict.score is None:
            tally.drop(f"unscored: {verdict.unscored_reason.split(':')[0]}", row.id)
        elif verdict.score < recipe.rating.keep_at_least:
            tally.drop(f"rated {verdict.score:g}, below {recipe.rating.keep_at_least:g}", row.id)
        else:
            tally.keep()
            rating = {"judge": verdict.judge, "score": verdict.score, **(verdict.meta["ratings"] or {})}
            kept.append(row.model_copy(update={"meta": {**row.meta, "rating": rating}}))
    tally.show()
    write_dropped(folder.work, [tally])
    if not kept:
        raise AlignError(
            "the judge lets no row pass",
            where=str(recipe.rows),
            fix="lower rating.keep_at_least, or take a judge that can rate",
        )
    return write_rows(folder.work / "instructions.parquet", kept)


def _calibrate(
    recipe: Recipe, rows: Sequence[Candidate | SFTRow], verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    """Against people's ratings; without them against the annotations, where an answer that invents
    nothing is worth 5 and any other 1."""
    ratings = {row.candidate_id: row.score for row in verdicts if row.score is not None}
    clusters = {row.id: row.images[0] if row.images else row.id for row in rows}
    labels = {label.id: float(label.rating) for label in read_labels(RatingLabel, recipe.labels)}
    if not labels and recipe.truth:
        answers = [row for row in rows if isinstance(row, Candidate)]
        truth = load_truth(recipe.truth, recipe.objects_mode)
        counts = invented(answers, truth, recipe.objects_mode)
        labels = {name: 1.0 if count else 5.0 for name, count in counts.items()}
    known = {name: rating for name, rating in labels.items() if name in clusters}
    if labels and not known:
        raise AlignError(
            "no label is of a row that was judged", where=str(recipe.labels), fix="check their ids"
        )
    return calibrate_ratings(ratings, known, clusters, recipe.rating.keep_at_least, recipe.seed)
