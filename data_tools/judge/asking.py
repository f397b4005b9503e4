"""What every kind of judge works on and hands back, and how a judge's server is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.digest import digest_json
from align.errors import AlignError
from align.inputs.images import image_sha256, resolve_image
from align.judging.endpoint import connect
from align.judging.replies import CUT_OFF, Read
from align.judging.unread import check_unread
from align.rows.schema import Candidate, Message, Verdict, read_rows
from align.run.folder import RunFolder
from align.serving.answers import AnswerStore, ask_stored
from align.serving.client import ChatRequest, Failure, Reply, Sampling, content_key
from align.serving.server import HOW_KEYS, Server, serve
from data_tools.judge.recipe import Recipe
from data_tools.sample import check_failures


@dataclass(frozen=True)
class Judged:
    """What a kind of judge returns.

    Attributes:
        verdicts: in order; gone through once, before metrics and lines are read.
        agreement: with annotations or labels, for `agreement.json`.
        lines: what is printed.
    """

    verdicts: Iterable[Verdict]
    agreement: dict[str, Any]
    metrics: dict[str, Any]
    lines: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Question:
    """What a judge is asked about one or two answers to a prompt."""

    text: str
    images: Sequence[str]


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


def by_prompt(candidates: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    """Prompt id -> its candidates, in order."""
    found: dict[str, list[Candidate]] = {}
    for row in candidates:
        found.setdefault(row.prompt_id, []).append(row)
    return found


@contextmanager
def judge_server(recipe: Recipe, folder: RunFolder) -> Iterator[tuple[Server, str]]:
    """The judge's server and the id that its verdicts carry."""
    if recipe.judge is not None:
        server = connect(recipe.judge, "judge.endpoint")
        yield server, f"{recipe.kind}/{server.model}"
        return
    assert recipe.model is not None  # held by the recipe
    with serve(recipe.model, recipe.serve, folder.logs) as server:
        yield server, f"{recipe.kind}/{server.digest[:16]}"


@dataclass
class Asker:
    """A judge that is up, with what it has answered before.

    Attributes:
        judge: the id that its verdicts carry.
    """

    recipe: Recipe
    server: Server
    judge: str
    store: AnswerStore
    _shas: dict[Path, str] = field(default_factory=dict)

    def ask(
        self, questions: Mapping[str, Question], max_tokens: int, top_logprobs: int = 0, pattern: str = ""
    ) -> dict[str, Reply | Failure]:
        """The reply to each question by the question's key; equal questions are asked once.

        Args:
            pattern: what a reply looks like; held to where the recipe says `guided`.

        Raises:
            AlignError: a missing image, `guided` with a server that is not vLLM, or a server that dies.
        """
        if self.recipe.guided and not self.server.is_vllm:
            raise AlignError(
                "this server is not vLLM, which alone guides replies",
                where=self.server.url,
                fix="set guided: false",
            )
        guided = pattern if self.recipe.guided else ""
        keys: dict[str, str] = {}
        requests: dict[str, ChatRequest] = {}
        for name, question in questions.items():
            paths = [resolve_image(self.recipe.image_root, image) for image in question.images]
            for path in paths:
                self._shas[path] = self._shas.get(path) or image_sha256(path)
            message = Message(role="user", content=question.text)
            sampling = Sampling(temperature=0.0, max_tokens=max_tokens)
            request = ChatRequest([message], paths, sampling, top_logprobs, guided)
            keys[name] = content_key(self.server.digest, request, [self._shas[path] for path in paths])
            requests[keys[name]] = request
        replies = ask_stored(self.server, self.store, requests, "judging", self.recipe.concurrency)
        return {name: replies[key] for name, key in keys.items()}


@contextmanager
def asker(recipe: Recipe, folder: RunFolder) -> Iterator[Asker]:
    """The recipe's judge. Its answers are kept in `answers`, a file a judge, and outlive the stage."""
    with (
        judge_server(recipe, folder) as (server, judge),
        AnswerStore(answers_path(recipe, server)) as store,
    ):
        yield Asker(recipe, server, judge, store)


def answers_path(recipe: Recipe, server: Server) -> Path:
    """Where a judge's answers are kept: no two judges share a file, nor one judge started in two ways."""
    own = {} if recipe.judge is not None else recipe.serve.model_dump(mode="json")
    started = {name: value for name, value in own.items() if f"serve.{name}" not in HOW_KEYS}
    name = digest_json([server.digest, started])[:16]
    return (recipe.answers or recipe.run_dir / "answers") / f"{name}.jsonl"


def ask_all(
    recipe: Recipe, folder: RunFolder, questions: Mapping[str, Question], max_tokens: int, pattern: str = ""
) -> tuple[str, dict[str, Reply | Failure]]:
    """The judge's id, and its reply to each question; see `Asker.ask`.

    Raises:
        AlignError: as `Asker.ask`, or more failures than `max_failed`.
    """
    with asker(recipe, folder) as at_hand:
        replies = at_hand.ask(questions, max_tokens, pattern=pattern)
    check_failures(replies, recipe.max_failed)
    return at_hand.judge, replies


def left_out(replies: Iterable[Reply | Failure]) -> dict[str, Any]:
    """For the manifest: `fields_left_out`, how many requests went without a field that the server refuses."""
    found = Counter(name for reply in replies if isinstance(reply, Reply) for name in reply.left_out)
    return {"fields_left_out": dict(sorted(found.items()))} if found else {}


def raw(reply: Reply | Failure) -> str | None:
    """What the judge wrote, as it came; None for a failed request."""
    return reply.choices[0].text if isinstance(reply, Reply) else None


def why_unread(reply: Reply | Failure, read: Read[Any]) -> str:
    """Why a reply gives no verdict; empty where it gives one."""
    if isinstance(reply, Failure):
        return f"request failed: {reply.reason}"
    if read.verdict is not None:
        return ""
    return CUT_OFF if reply.choices[0].finish_reason == "length" else read.reason


def check_read(
    recipe: Recipe, judge: str, replies: Iterable[Reply | Failure], reasons: Iterable[str], longer: str
) -> None:
    """Fail where most replies give no verdict.

    Args:
        reasons: of each reply, empty where it was read.
        longer: the key that makes replies longer.

    Raises:
        AlignError: more than the share `max_unread`.
    """
    guided = "" if recipe.kind == "claims" else "set guided: true (a vLLM server holds replies to the form), "
    check_unread(
        ((raw(reply), reason) for reply, reason in zip(replies, reasons, strict=True)),
        recipe.max_unread,
        where=judge,
        fix=f"{guided}word the prompt so that the verdict stands alone, take another judge, "
        "or raise max_unread",
        longer=f"raise {longer}",
    )
