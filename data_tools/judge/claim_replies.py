"""How a judge is asked about claims: by its first token's log-probs, or where there are none by its words.

RLAIF-V compares the probabilities of yes and no at the reply's first token. Many servers tell none, and a
judge that thinks first has a thought there, with or without its mark: it is asked for a whole reply, which is
read as `align.judging.replies` does, and counts as 1 and 0 (`Claim.by_text`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.claims import StatedClaim
from align.judging.replies import Read
from align.progress import say
from align.serving.client import Failure, Reply
from data_tools.judge.asking import Asker, Question, check_read, left_out, why_unread
from data_tools.judge.claim_questions import read_reply, read_text
from data_tools.judge.recipe import Recipe
from data_tools.sample import check_failures

NUM_LOGPROBS = 20
_LIKELY = 0.1
"""Probability of yes and no together below which a first token is looked at twice."""
_SILENT = "tells no log-probabilities"


@dataclass(frozen=True)
class ClaimReader:
    """Reads the reply to the question about one claim."""

    claim: StatedClaim
    template: str

    def by_logprobs(self, reply: Reply | Failure) -> tuple[float, float] | None:
        """(p_yes, p_no) of the first token; None where it tells none, or begins a thought."""
        if isinstance(reply, Failure) or reply.choices[0].thinks:
            return None
        return read_reply(self.claim, self.template, reply.choices[0].first_logprobs)

    def by_words(self, reply: Reply | Failure) -> Read[bool]:
        """What a whole reply says."""
        if isinstance(reply, Failure):
            return Read(None)
        return read_text(self.claim, self.template, reply.choices[0].text)


@dataclass(frozen=True)
class Answered:
    """What the judge said of each claim, by the question's key, as fields of `Claim`; and what to record."""

    values: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, Any]


def ask_claims(
    recipe: Recipe, judge: Asker, questions: Mapping[str, Question], readers: Mapping[str, ClaimReader]
) -> Answered:
    """Ask about every claim; one question goes first and shows how this judge is to be read.

    Raises:
        AlignError: as `Asker.ask`, too many requests failed, or most replies were unread.
    """
    first = next(iter(questions), None)
    if first is None:
        return Answered({}, {})
    probe = judge.ask({first: questions[first]}, 1, NUM_LOGPROBS)[first]
    tells = isinstance(probe, Reply) and bool(probe.choices[0].first_logprobs)
    replies: dict[str, Reply | Failure] = {first: probe}
    values: dict[str, dict[str, Any]] = {}
    thinks = judge.server.thinks or (
        tells and _thinks(recipe, judge, questions[first], readers[first], probe)
    )
    if tells and not thinks:
        replies |= judge.ask(questions, 1, NUM_LOGPROBS)
    for name, reply in replies.items():
        if not thinks and (found := readers[name].by_logprobs(reply)) is not None:
            values[name] = {"p_yes": round(found[0], 6), "p_no": round(found[1], 6)}
        elif not tells and _is_whole(reply) and (word := readers[name].by_words(reply)).verdict is not None:
            values[name] = _by_text(word.verdict)
    rest = {name: question for name, question in questions.items() if name not in values}
    if rest:
        how = "thinks first" if thinks else "does not begin with the answer" if tells else _SILENT
        say(f"  the judge {how} on {len(rest)} of {len(questions)} questions: asked for its words")
        replies |= judge.ask(rest, recipe.text_tokens)
    check_failures(replies, recipe.max_failed)
    reasons = _read_words(values, list(rest), readers, replies)
    check_read(
        recipe,
        judge.judge,
        list(replies.values()),
        [reasons.get(name, "") for name in replies],
        "text_tokens",
    )
    by_text = sum(bool(value.get("by_text")) for value in values.values())
    metrics = {"claims_by_text": by_text} if by_text else {}
    return Answered({name: values.get(name, {}) for name in questions}, metrics | left_out(replies.values()))


def _thinks(
    recipe: Recipe, judge: Asker, question: Question, reader: ClaimReader, probe: Reply | Failure
) -> bool:
    """Whether the judge thinks first: its first token begins a mark of thoughts, or has little to do with the
    answer (some templates open the thoughts in the prompt), and its whole reply shows some."""
    if isinstance(probe, Failure):
        return False
    if probe.choices[0].thinks:
        return True
    if sum(reader.by_logprobs(probe) or (0.0, 0.0)) >= _LIKELY:
        return False
    whole = judge.ask({"": question}, recipe.text_tokens)[""]
    return isinstance(whole, Reply) and whole.choices[0].thinks


def _read_words(
    values: dict[str, dict[str, Any]],
    names: Sequence[str],
    readers: Mapping[str, ClaimReader],
    replies: Mapping[str, Reply | Failure],
) -> dict[str, str]:
    """Read whole replies into `values`; why others were not."""
    reasons: dict[str, str] = {}
    for name in names:
        read = readers[name].by_words(replies[name])
        if read.verdict is None:
            reasons[name] = why_unread(replies[name], read)
        else:
            values[name] = _by_text(read.verdict)
    return reasons


def _by_text(verdict: bool | None) -> dict[str, Any]:
    return {"p_yes": float(bool(verdict)), "p_no": float(not verdict), "by_text": True}


def _is_whole(reply: Reply | Failure) -> bool:
    return isinstance(reply, Reply) and reply.choices[0].finish_reason == "stop"
