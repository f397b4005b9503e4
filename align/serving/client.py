"""Requests to an OpenAI-compatible server: many at a time, every sampling field pinned, failures typed.

A failed request is a `Failure`, never text. Connection faults and 5xx answers are retried with
back-off; a refused request (4xx) is not. A server that is gone stops the run with an `AlignError`;
whatever was answered until then has gone through `on_reply`.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import Field

from align.config.recipe import Strict
from align.digest import digest_json
from align.errors import AlignError
from align.inputs.chat import check_text, openai_messages
from align.rows.messages import BaseRow, Message, said
from align.serving.server import Server

_BACKOFF_SECONDS = 0.5


class Decoding(Strict):
    """How tokens are drawn. Every field is sent: none is left to the server or to a generation config."""

    temperature: float = Field(default=0.0, ge=0, description="0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1, description="nucleus; 1 is off")
    top_k: int = Field(default=0, ge=0, description="0 is off")
    min_p: float = Field(default=0.0, ge=0, le=1, description="0 is off")
    repetition_penalty: float = Field(default=1.0, gt=0, description="1 is off")
    presence_penalty: float = Field(default=0.0, description="0 is off")
    frequency_penalty: float = Field(default=0.0, description="0 is off")
    stop: list[str] = Field(default=[], description="texts that end the answer")


class Sampling(Decoding):
    """One request's decoding, with what belongs to the request itself."""

    max_tokens: int = Field(default=64, ge=1, description="longest answer, in tokens")
    n: int = Field(default=1, ge=1, description="answers a request")
    seed: int = Field(default=0, ge=0, description="answer i of n uses seed + i")


@dataclass(frozen=True)
class ChatRequest:
    """One question to the server.

    Attributes:
        images: files (read when the request is sent) or encoded bytes; sent as they are.
        top_logprobs: how many of the first token's alternatives to return; 0 is none, at most 20.
        pattern: a regular expression that a vLLM server holds the whole answer to (structured outputs); empty
            is none. Other servers refuse it.
    """

    messages: Sequence[Message]
    images: Sequence[bytes | Path] = ()
    sampling: Sampling = field(default_factory=Sampling)
    top_logprobs: int = 0
    pattern: str = ""


class Choice(BaseRow):
    """One answer. `first_logprobs` maps spellings to natural log-probabilities of the first token;
    `token_ids` (the end token included) are empty where the server does not tell them."""

    text: str
    finish_reason: str
    num_tokens: int
    first_logprobs: dict[str, float] = Field(default_factory=dict)
    token_ids: list[int] = Field(default_factory=list)


class Reply(BaseRow):
    """The server's answer: `n` choices, in order; `prompt_tokens` is 0 where the server does not tell."""

    choices: list[Choice]
    prompt_tokens: int = 0


class Failure(BaseRow):
    """A request that got no answer, and why."""

    reason: str


def content_key(digest: str, request: ChatRequest, image_sha256: Sequence[str]) -> str:
    """The identity of an answer: weights, messages, image bytes and sampling, never a path or position.

    The chat template is among the weights' files, so the digest covers the rendering.
    """
    sampling = request.sampling.model_dump(mode="json")
    identity = [digest, said(request.messages), list(image_sha256), sampling, request.top_logprobs]
    return digest_json([*identity, request.pattern] if request.pattern else identity)


def ask(
    server: Server,
    requests: Sequence[tuple[str, ChatRequest]],
    on_reply: Callable[[str, Reply | Failure], None],
    concurrency: int = 64,
    timeout_seconds: float = 600.0,
    attempts: int = 5,
) -> None:
    """Ask every request, in order of the list, at most `concurrency` at a time.

    Args:
        on_reply: called with the request's key, in the order of arrival, never concurrently.

    Raises:
        AlignError: the server died or cannot be reached any more.
    """
    try:
        asyncio.run(_ask_all(server, requests, on_reply, concurrency, timeout_seconds, attempts))
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


async def _ask_all(
    server: Server,
    requests: Sequence[tuple[str, ChatRequest]],
    on_reply: Callable[[str, Reply | Failure], None],
    concurrency: int,
    timeout_seconds: float,
    attempts: int,
) -> None:
    # A read timeout, not a total one: a request may wait its turn on a busy server.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=timeout_seconds)
    headers = {"Content-Type": "application/json"}
    if server.api_key:
        headers["Authorization"] = f"Bearer {server.api_key}"

    async def work(http: aiohttp.ClientSession, queue: Iterator[tuple[str, ChatRequest]]) -> None:
        for key, request in queue:
            on_reply(key, await _ask_one(http, server, request, attempts))

    queue = iter(requests)
    connector = aiohttp.TCPConnector(limit=concurrency)
    session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers)
    async with session as http, asyncio.TaskGroup() as tasks:
        for _ in range(min(concurrency, len(requests))):
            tasks.create_task(work(http, queue))


async def _ask_one(
    http: aiohttp.ClientSession, server: Server, request: ChatRequest, attempts: int
) -> Reply | Failure:
    if (spelled := spells_image(request, server.image_words)) is not None:
        return spelled
    body = await asyncio.to_thread(_encoded_body, server, request)
    failure = Failure(reason="not asked")
    unreachable = False
    for attempt in range(attempts):
        if attempt:
            await asyncio.sleep(_BACKOFF_SECONDS * 2 ** (attempt - 1) * (1 + random.random() / 4))
        if not server.alive():
            raise _gone(server, server.last_words())
        try:
            async with http.post(f"{server.url}/chat/completions", data=body) as response:
                status, content = response.status, await response.read()
        except TimeoutError as error:
            failure, unreachable = Failure(reason=f"timeout: {type(error).__name__}"), False
            continue
        except (aiohttp.ClientError, OSError) as error:
            failure, unreachable = Failure(reason=f"connection: {error or type(error).__name__}"), True
            continue
        unreachable = False
        if status == 200:
            return _parse(content, request)
        failure = Failure(reason=f"HTTP {status}: {_message(content)}")
        if status < 500:
            return failure
    if unreachable or not server.alive():
        raise _gone(server, server.last_words() or failure.reason)
    return failure


def spells_image(request: ChatRequest, image_words: Sequence[str]) -> Failure | None:
    """The failure of a request whose text the model would take for an image; None for all others."""
    try:
        check_text((message.text for message in request.messages), image_words)
    except AlignError as error:
        return Failure(reason=f"not sent: {error.what}")
    return None


def request_body(server: Server, request: ChatRequest) -> dict[str, Any]:
    """The JSON of one chat completion request."""
    images = [data if isinstance(data, bytes) else data.read_bytes() for data in request.images]
    body: dict[str, Any] = {
        "model": server.model,
        "messages": openai_messages(request.messages, images),
        **request.sampling.model_dump(mode="json"),
    }
    if request.top_logprobs:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    if request.pattern:
        body["structured_outputs"] = {"regex": request.pattern}
    if server.is_vllm:
        body["return_token_ids"] = True
    else:
        # Not part of OpenAI's interface; other servers refuse unknown fields.
        for name in ("top_k", "min_p", "repetition_penalty"):
            del body[name]
    return body


def _encoded_body(server: Server, request: ChatRequest) -> bytes:
    return json.dumps(request_body(server, request)).encode()


def _parse(content: bytes, request: ChatRequest) -> Reply | Failure:
    try:
        body = json.loads(content.decode("utf-8", errors="replace"))
        answers = sorted(body["choices"], key=lambda choice: choice["index"])
        if len(answers) != request.sampling.n:
            return Failure(reason=f"{len(answers)} answers instead of {request.sampling.n}")
        share = body["usage"]["completion_tokens"] / len(answers)
        choices = [
            Choice(
                text=_writable(answer["message"]["content"] or ""),
                finish_reason=answer["finish_reason"],
                num_tokens=len(answer.get("token_ids") or ()) or round(share),
                first_logprobs=_first_logprobs(answer.get("logprobs")),
                token_ids=answer.get("token_ids") or [],
            )
            for answer in answers
        ]
    except (ValueError, LookupError, TypeError) as error:
        return Failure(reason=f"not a chat completion: {type(error).__name__}: {error}")
    return Reply(choices=choices, prompt_tokens=int(body["usage"].get("prompt_tokens") or 0))


def _writable(text: str) -> str:
    """Half a surrogate pair, which no file can hold, becomes the replacement character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _first_logprobs(logprobs: dict[str, Any] | None) -> dict[str, float]:
    """Spelling -> log-probability at the first position; equal spellings of several tokens add up."""
    found: dict[str, float] = {}
    positions = (logprobs or {}).get("content") or []
    for item in positions[0]["top_logprobs"] if positions else []:
        earlier = found.get(item["token"])
        found[item["token"]] = _log_sum(earlier, item["logprob"]) if earlier is not None else item["logprob"]
    return found


def _log_sum(a: float, b: float) -> float:
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


def _message(content: bytes) -> str:
    text = content.decode("utf-8", errors="replace")
    try:
        body = json.loads(text)
        return str((body.get("error") or body)["message"])[:300]
    except (ValueError, LookupError, TypeError, AttributeError):
        return text[:300]


def _gone(server: Server, words: str) -> AlignError:
    own = server.process is not None  # one that a recipe's `serve` section started
    memory = "max_num_seqs or kv_cache_gb in the section `serve`" if own else "what it decodes at once"
    return AlignError(
        f"the server stopped answering: {words}",
        where=str(server.log_path or server.url),
        fix=f"run again: what was answered is kept. Out of memory? Lower {memory}",
    )
