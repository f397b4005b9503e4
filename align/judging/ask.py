"""A language model as judge behind any OpenAI-compatible endpoint: asked k times, closed set of verdicts.

A reply outside the set is no verdict but unscored, with the reason; so is a request that failed. Every
judgement carries the judge's id, the digest of the prompt's wording and the reply itself, and the tokens are
counted. There is no fallback: without a judge, a judged task refuses. Where published answers carry another
judge's verdicts, those are the reference that the judge is measured against.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from align.digest import digest_json
from align.inputs.images import image_sha256
from align.judging.endpoint import Endpoint, connect
from align.judging.kappa import agreement_of
from align.judging.replies import CUT_OFF, settled
from align.judging.unread import check_unread
from align.progress import say
from align.rows.schema import BaseRow, Message
from align.serving.answers import AnswerStore, ask_stored
from align.serving.client import ChatRequest, Failure, Reply, Sampling, content_key


class JudgeSettings(Endpoint):
    """Which judge, and how often it is asked."""

    repeats: int = Field(default=1, ge=1, description="times each answer is judged; the mean counts")
    temperature: float = Field(default=0.0, ge=0, description="0 gives equal repeats; raise it with repeats")
    max_tokens: int = Field(default=512, ge=1, description="longest reply in tokens")
    concurrency: int = Field(default=32, ge=1, description="requests at the same time")
    max_unread: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="share of replies without a verdict to accept; they are unscored, counted and shown",
    )
    store: Path | None = Field(default=None, description="file of replies; a stopped run asks nothing twice")

    @property
    def name(self) -> str:
        """The judge as a protocol names it, wherever it is served; judgements have the model's own name."""
        return self.model or "the endpoint's first model"


class Judgement(BaseRow):
    """One verdict on one answer.

    Attributes:
        judge: the model's name, or `file` for a verdict that came with published answers.
        prompt_sha256: digest of the prompt's wording; empty for a verdict that came in a file.
        reply: what the judge wrote; None where the request failed.
        verdict: one of the task's closed set, None if unscored.
        unscored_reason: why there is no verdict.
    """

    sample_id: str
    repeat: int
    judge: str
    prompt_sha256: str
    reply: str | None
    verdict: Any = None
    unscored_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


Judgements = Mapping[str, Sequence[Judgement]]
"""Sample id -> its judgements, one a repeat."""


def ask_judge(
    settings: JudgeSettings,
    questions: Mapping[str, Sequence[Message]],
    wording: str,
    read: Callable[[str], Any],
    pictures: Mapping[str, Sequence[Path]] | None = None,
) -> Judgements:
    """Put each question to the judge `repeats` times.

    Args:
        questions: sample id -> what the judge is asked about its answer.
        wording: the prompt without the sample's parts; its digest stands on every judgement.
        read: the verdict of what stands behind a reply's thoughts, None if it gives none of the closed set.
        pictures: sample id -> what the judge is shown; nothing by default.

    Raises:
        AlignError: no server answers at the endpoint, it stops answering, or more of its replies than
            `max_unread` give no verdict.
    """
    server = connect(settings, "judge.endpoint")
    digest = digest_json([wording])
    asked: dict[tuple[str, int], str] = {}
    requests: dict[str, ChatRequest] = {}
    for sample_id, messages in questions.items():
        for repeat in range(settings.repeats):
            sampling = Sampling(temperature=settings.temperature, max_tokens=settings.max_tokens, seed=repeat)
            images = (pictures or {}).get(sample_id, ())
            request = ChatRequest(messages, images, sampling)
            key = content_key(server.digest, request, [image_sha256(image) for image in images])
            asked[sample_id, repeat], requests[key] = key, request
    with tempfile.TemporaryDirectory(prefix="align-judge-") as scratch:
        path = settings.store or Path(scratch) / "replies.jsonl"
        with AnswerStore(path) as store:
            replies = ask_stored(server, store, requests, "judging", settings.concurrency)
    found: dict[str, list[Judgement]] = {}
    for (sample_id, repeat), key in asked.items():
        judgement = _judgement(sample_id, repeat, server.model, digest, replies[key], read)
        found.setdefault(sample_id, []).append(judgement)
    flat = [row for rows in found.values() for row in rows]
    unread = check_unread(
        ((row.reply, row.unscored_reason) for row in flat),
        settings.max_unread,
        where=server.model,
        fix="take another judge, or raise judge.max_unread",
        longer="raise judge.max_tokens",
    )
    if 2 * unread > len(flat):
        shown = next(row.reply for row in flat if row.reply is not None and row.verdict is None)
        say(f"  {unread} of the judge's {len(flat)} replies give no verdict, such as {shown[:120]!r}")
    return found


def told(sample_id: str, reply: str | None, verdict: Any, reason: str = "") -> Judgement:
    """A judgement that came with published answers."""
    return Judgement(
        sample_id=sample_id,
        repeat=0,
        judge="file",
        prompt_sha256="",
        reply=reply,
        verdict=verdict,
        unscored_reason="" if verdict is not None else reason or "no verdict in the judge's reply",
    )


def summarise(judgements: Judgements) -> dict[str, Any]:
    """Who judged, with what wording, how many judgements were unscored and why, and the tokens."""
    flat = [item for items in judgements.values() for item in items]
    reasons: dict[str, int] = {}
    for item in flat:
        if item.verdict is None:
            reasons[item.unscored_reason] = reasons.get(item.unscored_reason, 0) + 1
    return {
        "judge": sorted({item.judge for item in flat}),
        "prompt_sha256": sorted({item.prompt_sha256 for item in flat if item.prompt_sha256}),
        "judgements": len(flat),
        "repeats": max((len(items) for items in judgements.values()), default=0),
        "unscored": sum(reasons.values()),
        "unscored_reasons": reasons,
        "prompt_tokens": sum(item.prompt_tokens for item in flat),
        "completion_tokens": sum(item.completion_tokens for item in flat),
    }


def agreement(judgements: Judgements, reference: Judgements) -> dict[str, Any]:
    """How often a judge says what a reference says, see `align.judging.kappa.agreement_of`.

    Each of a sample's judgements is compared with the reference's first; pairs where either is unscored are
    left out.
    """
    pairs = [
        (str(row.verdict), str(reference[sample_id][0].verdict))
        for sample_id, rows in judgements.items()
        for row in rows
        if sample_id in reference and row.verdict is not None and reference[sample_id][0].verdict is not None
    ]
    return agreement_of(pairs)


def _judgement(
    sample_id: str,
    repeat: int,
    judge: str,
    digest: str,
    reply: Reply | Failure,
    read: Callable[[str], Any],
) -> Judgement:
    row = Judgement(sample_id=sample_id, repeat=repeat, judge=judge, prompt_sha256=digest, reply=None)
    if isinstance(reply, Failure):
        return row.model_copy(update={"unscored_reason": f"request failed: {reply.reason}"})
    choice = reply.choices[0]
    behind = settled(choice.text)
    verdict = None if behind.verdict is None else read(behind.verdict)
    reason = "" if verdict is not None else behind.reason or "no verdict in the judge's reply"
    if verdict is None and choice.finish_reason == "length":
        reason = CUT_OFF
    return row.model_copy(
        update={
            "reply": choice.text,
            "verdict": verdict,
            "unscored_reason": reason,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": choice.num_tokens,
        }
    )
