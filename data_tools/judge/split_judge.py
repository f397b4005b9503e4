"""Kind claims with `splitter: model`: answers are split by a model, and every claim is asked of the judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from align.claims import StatedClaim
from align.judging.endpoint import connect
from align.judging.replies import Read
from align.judging.wording import fill, spoken
from align.progress import say
from align.rows.schema import Candidate, Claim
from align.run.folder import RunFolder
from align.serving.answers import AnswerStore
from data_tools.judge.asking import (
    Asker,
    Judged,
    Question,
    answers_path,
    asker,
    check_read,
    raw,
    read_candidates,
    why_unread,
)
from data_tools.judge.claim_replies import ClaimReader, ask_claims
from data_tools.judge.claims import KINDS, judged_answers
from data_tools.judge.recipe import Recipe
from data_tools.judge.split import SplitClaim, read_split
from data_tools.sample import check_failures

_YES_NO = StatedClaim("presence", "", "")
"""Read by yes or no, whatever the claim is about."""


def judge_split_claims(recipe: Recipe, folder: RunFolder) -> Judged:
    """Split every answer, ask every claim once a picture, and score the answers by their claims.

    Raises:
        AlignError: as `Asker.ask`, or most replies of the splitter or of the judge were unread.
    """
    assert recipe.candidates is not None
    candidates = read_candidates(recipe.candidates)
    with asker(recipe, folder) as judge:
        with _splitter(recipe, judge) as splitter:
            split = _split(recipe, splitter, candidates)
        questions: dict[str, Question] = {}
        for row in candidates:
            for claim in split[row.id].verdict or ():
                asked = fill(recipe.split.ask, {"question": claim.question})
                questions[_key(row, claim)] = Question(asked, row.images)
        total = sum(len(read.verdict or ()) for read in split.values())
        say(f"  {total} claims in {len(candidates)} answers: {len(questions)} questions to the judge")
        readers = dict.fromkeys(questions, ClaimReader(_YES_NO, ""))
        answered = ask_claims(recipe, judge, questions, readers)
    made = {
        row.id: [_judged(claim, answered.values[_key(row, claim)]) for claim in split[row.id].verdict or ()]
        for row in candidates
    }
    unsplit = {name: read.reason for name, read in split.items() if read.verdict is None}
    every = {
        (row.images[0] if row.images else "", claim.text): claim
        for row in candidates
        for claim in made[row.id]
    }
    found = judged_answers(recipe, judge.judge, candidates, made, list(every.values()), unsplit)
    own: dict[str, Any] = {"unsplit": len(unsplit), "claims_an_answer": round(total / len(candidates), 2)}
    lines = (
        [*found.lines, f"  {len(unsplit)} answers could not be split, and are unscored"]
        if unsplit
        else found.lines
    )
    return replace(found, metrics={**found.metrics, **answered.metrics, **own}, lines=lines)


@contextmanager
def _splitter(recipe: Recipe, judge: Asker) -> Iterator[Asker]:
    """The judge itself, or the server of `split.by`."""
    if recipe.split.by is None:
        yield judge
        return
    server = connect(recipe.split.by, "split.by.endpoint")
    with AnswerStore(answers_path(recipe, server)) as store:
        yield Asker(recipe, server, server.model, store)


def _split(
    recipe: Recipe, splitter: Asker, candidates: Sequence[Candidate]
) -> Mapping[str, Read[list[SplitClaim]]]:
    """Candidate id -> its claims, or why there are none; no picture is sent."""
    questions = {
        row.id: Question(fill(recipe.split.prompt, {"question": spoken(row.prompt), "answer": row.text}), ())
        for row in candidates
        if row.text.strip()
    }
    say(f"  splitting {len(questions)} answers by {splitter.server.model}: a text request each, no picture")
    replies = splitter.ask(questions, recipe.split.max_tokens)
    check_failures(replies, recipe.max_failed)
    found: dict[str, Read[list[SplitClaim]]] = {row.id: Read(None, "empty answer") for row in candidates}
    for name, reply in replies.items():
        text = raw(reply)
        read = Read(None) if text is None else read_split(text)
        reason = why_unread(reply, read)
        if reason.startswith("the judge's reply"):  # cut off: it is the splitter's
            reason = reason.replace("the judge's", "the splitter's")
        wanted = recipe.kinds if "kinds" in recipe.model_fields_set else KINDS
        claims = [claim for claim in read.verdict or () if claim.kind in wanted]
        found[name] = Read(None, reason) if reason else Read(claims)
    reasons = [found[name].reason for name in replies]
    check_read(recipe, f"the splitter {splitter.server.model}", replies.values(), reasons, "split.max_tokens")
    return found


def _key(row: Candidate, claim: SplitClaim) -> str:
    return "\n".join((*row.images, claim.question))


def _judged(claim: SplitClaim, values: Mapping[str, Any]) -> Claim:
    return Claim(text=claim.text, question=claim.question, kind=claim.kind).model_copy(update=dict(values))
