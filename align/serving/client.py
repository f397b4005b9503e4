"""Requests to an OpenAI-compatible server: many at a time, every sampling field pinned, failures typed.

A failed request is a `Failure`, never text. What may pass (HTTP 429, 408, 5xx, time-outs, lost connections)
is asked again, when the server says or ever later, up to a set time; a refused request (other 4xx) is not,
except that a sampling field which the server does not know is left out, said once, and noted on the reply.
A server that is gone stops the run with an `AlignError`; whatever was answered until then has gone through
`on_reply`.
"""

from __future__ import annotations

import asyncio
import json
import math
import operator
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import Field, model_validator

from align.config.recipe import Strict
from align.digest import digest_json
from align.errors import AlignError
from align.inputs.chat import check_text, openai_messages
from align.progress import say
from align.rows.messages import BaseRow, Message, said
from align.rows.thoughts import Said, opens_thoughts, set_apart, share_of_tokens
from align.serving.server import Server
from align.serving.wire import error_in, is_asked_again, own_words, refused_field, retry_after, url_of

_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 60.0
_SAY_SECONDS = 30.0
"""Silence of a server after which a line says so."""


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
    `token_ids` (the end token included) are empty where the server does not tell them, `num_tokens` is 0 and
    `finish_reason` empty.

    `reasoning` are the thoughts before it, which a server tells in a field of their own or within the text;
    neither `text` holds nor `num_tokens` counts them. `unclosed` ones do not end: `text` is empty, and the
    `finish_reason` length."""

    text: str
    finish_reason: str
    num_tokens: int
    reasoning: str = Field(default="", exclude_if=operator.not_)
    unclosed: bool = Field(default=False, exclude_if=operator.not_)
    first_logprobs: dict[str, float] = Field(default_factory=dict)
    token_ids: list[int] = Field(default_factory=list)

    @model_validator(mode="after")
    def _answer_alone(self) -> Choice:
        set_apart(self)
        return self

    @property
    def thinks(self) -> bool:
        """Whether it begins with thoughts, or with the first piece of their mark."""
        return bool(self.reasoning) or self.unclosed or opens_thoughts(self.text)


class Reply(BaseRow):
    """The server's answer: `n` choices, in order; `prompt_tokens` is 0 where the server does not tell.

    `left_out` are fields that the request should have had and the server refuses.
    """

    choices: list[Choice]
    prompt_tokens: int = 0
    left_out: list[str] = Field(default_factory=list)


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
    timeout_seconds: float | None = None,
    attempts: int = 5,
) -> None:
    """Ask every request, in order of the list, at most `concurrency` at a time.

    Args:
        on_reply: called with the request's key, in the order of arrival, never concurrently.
        timeout_seconds: longest silence of a request; the server's `patience` by default.
        attempts: tries of a request whose server fails; where it asks to wait, the time alone counts.

    Raises:
        AlignError: the server died or cannot be reached any more.
    """
    wire = _Wire(server, timeout_seconds or server.patience.timeout_seconds, attempts)
    try:
        asyncio.run(_ask_all(wire, requests, on_reply, concurrency))
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


@dataclass
class _Wire:
    """What the requests of one `ask` share.

    Attributes:
        held_until: nothing is sent before, as the server asked.
        waiting: number of requests sent and not answered.
        heard: when a reply came last. All times are of the monotonic clock.
    """

    server: Server
    timeout_seconds: float
    attempts: int
    held_until: float = 0.0
    waiting: int = 0
    heard: float = field(default_factory=time.monotonic)

    async def hold(self) -> None:
        """Until the server's own waiting time is over; then not all at once."""
        while (left := self.held_until - time.monotonic()) > 0:
            await asyncio.sleep(left * (1 + random.random() / 8))

    def wait_for(self, seconds: float, reason: str) -> None:
        """Nothing more is sent for so long; a longer wait is said."""
        until = time.monotonic() + seconds
        if seconds >= 5 and until > self.held_until + 1:
            say(f"  {self.server.url} asks to wait {seconds:.0f} s ({reason[:80]})")
        self.held_until = max(self.held_until, until)

    async def watch(self) -> None:
        """A line when nothing is heard of requests that were sent, and again after twice the time."""
        due = _SAY_SECONDS
        while True:
            await asyncio.sleep(min(1.0, _SAY_SECONDS / 4))
            silent = time.monotonic() - max(self.heard, self.held_until)
            if silent < due / 2:
                due = _SAY_SECONDS
            if self.waiting and silent >= due:
                due = 2 * silent
                say(
                    f"  no answer from {self.server.url} for {silent:.0f} s: {self.waiting} requests wait, "
                    f"each up to timeout_seconds: {self.timeout_seconds:g}, and are then asked again"
                )


async def _ask_all(
    wire: _Wire,
    requests: Sequence[tuple[str, ChatRequest]],
    on_reply: Callable[[str, Reply | Failure], None],
    concurrency: int,
) -> None:
    # A read timeout, not a total one: a request may wait its turn on a busy server.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=wire.timeout_seconds)
    headers = {"Content-Type": "application/json"}
    if wire.server.api_key:
        headers["Authorization"] = f"Bearer {wire.server.api_key}"

    async def work(http: aiohttp.ClientSession, queue: Iterator[tuple[str, ChatRequest]]) -> None:
        for key, request in queue:
            on_reply(key, await _ask_one(http, wire, request))

    queue = iter(requests)
    connector = aiohttp.TCPConnector(limit=concurrency)
    session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers)
    watch = asyncio.create_task(wire.watch())
    try:
        async with session as http, asyncio.TaskGroup() as tasks:
            for _ in range(min(concurrency, len(requests))):
                tasks.create_task(work(http, queue))
    finally:
        watch.cancel()


@dataclass(frozen=True)
class _Try:
    """What one try of a request came to.

    Attributes:
        again: whether it may pass later.
        after: seconds that the server asks to wait; None where it does not say.
        is_busy: the server answers and asks for patience, so that the try counts by time alone.
        refused: a field to leave out, and ask at once.
    """

    result: Reply | Failure
    again: bool = False
    after: float | None = None
    is_busy: bool = False
    is_unreachable: bool = False
    refused: str | None = None


async def _ask_one(http: aiohttp.ClientSession, wire: _Wire, request: ChatRequest) -> Reply | Failure:
    server = wire.server
    if (spelled := spells_image(request, server.image_words)) is not None:
        return spelled
    body = await asyncio.to_thread(request_body, server, request)
    began = time.monotonic()
    faults = tries = 0
    while True:
        await wire.hold()
        if not server.alive():
            raise _gone(server, server.last_words())
        left_out = _leave_out(body, server.left_out)
        found = await _try(http, wire, request, body)
        if isinstance(found.result, Reply):
            return found.result.model_copy(update={"left_out": left_out}) if left_out else found.result
        if found.refused is not None:
            if found.refused not in server.left_out:
                server.left_out[found.refused] = found.result.reason
                words = found.result.reason[:120]
                say(f"  {server.url} refuses {found.refused}: left out from here on ({words})")
            continue
        faults, tries = faults + (not found.is_busy), tries + 1
        if not found.again or faults >= wire.attempts:
            break
        backoff = min(_BACKOFF_SECONDS * 2 ** (tries - 1), _LONGEST_BACKOFF_SECONDS) * (
            1 + random.random() / 4
        )
        delay = backoff if found.after is None else found.after
        if time.monotonic() - began + delay > server.patience.retry_seconds:
            limit = f"retry_seconds: {server.patience.retry_seconds:g}"
            reason = f"{found.result.reason} (asked {tries} times, {limit})"
            found = _Try(Failure(reason=reason), is_unreachable=found.is_unreachable)
            break
        if found.after is not None:
            wire.wait_for(found.after, found.result.reason)
        else:
            await asyncio.sleep(delay)
    result = found.result
    if isinstance(result, Failure) and (found.is_unreachable or not server.alive()):
        raise _gone(server, server.last_words() or result.reason)
    return result


async def _try(http: aiohttp.ClientSession, wire: _Wire, request: ChatRequest, body: dict[str, Any]) -> _Try:
    data = await asyncio.to_thread(_encoded, body)
    wire.waiting += 1
    try:
        async with http.post(url_of(wire.server.url, "chat/completions"), data=data) as response:
            status, content = response.status, await response.read()
            headers = {name.lower(): value for name, value in response.headers.items()}
    except TimeoutError as error:
        return _Try(Failure(reason=f"timeout: {type(error).__name__}"), again=True)
    except (aiohttp.ClientError, OSError) as error:
        reason = f"connection: {error or type(error).__name__}"
        return _Try(Failure(reason=reason), again=True, is_unreachable=True)
    finally:
        wire.waiting -= 1
    wire.heard = time.monotonic()
    if status == 200:
        found, claimed = _parse(content, request)
        if isinstance(found, Reply) or claimed is None:
            return _Try(found)
        status = claimed
    words = own_words(content)
    failure = Failure(reason=f"HTTP {status}: {words}")
    after = retry_after(headers)
    if is_asked_again(status, content.decode("utf-8", errors="replace")):
        is_busy = status in (408, 425, 429) or after is not None
        return _Try(failure, again=True, after=after, is_busy=is_busy)
    return _Try(failure, refused=refused_field(status, content, body))


def _leave_out(body: dict[str, Any], refused: Mapping[str, str]) -> list[str]:
    """Take what a server refuses out of a body; the names. `max_tokens` has a second name to try."""
    if "max_tokens" in refused and "max_tokens" in body:
        body["max_completion_tokens"] = body.pop("max_tokens")
    for name in refused:
        if name == "stop" and body.get("stop"):
            continue
        if name == "n" and body.get("n", 1) != 1:
            continue
        body.pop(name, None)
        if name == "logprobs":
            body.pop("top_logprobs", None)
    names = {name for name in refused if name not in body}
    if "max_completion_tokens" in body and "max_tokens" in names:
        names = names - {"max_tokens"} | {"max_tokens (sent as max_completion_tokens)"}
    return sorted(names)


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
    if server.template_kwargs:
        body["chat_template_kwargs"] = dict(server.template_kwargs)
    if request.pattern:
        body["structured_outputs"] = {"regex": request.pattern}
    if server.is_vllm:
        body["return_token_ids"] = True
        if server.keeps_marks:
            body["skip_special_tokens"] = False
    else:
        # Not part of OpenAI's interface; other servers refuse unknown fields.
        for name in ("top_k", "min_p", "repetition_penalty"):
            del body[name]
    return body


def _encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body).encode()


def _parse(content: bytes, request: ChatRequest) -> tuple[Reply | Failure, int | None]:
    """The reply; for an error that came with HTTP 200 the status that it claims, if it claims one."""
    try:
        body = json.loads(content.decode("utf-8", errors="replace"))
    except ValueError as error:
        return Failure(reason=f"not a chat completion: {type(error).__name__}: {error}"), None
    if (error := error_in(body)) is not None:
        status, words = error
        return Failure(reason=f"the server says: {words}"), status
    try:
        answers = list(body["choices"])
        if all(isinstance(choice.get("index"), int) for choice in answers):
            answers.sort(key=lambda choice: choice["index"])
        if len(answers) != request.sampling.n:
            return Failure(reason=f"{len(answers)} answers instead of {request.sampling.n}"), None
        usage = body.get("usage") or {}
        share = (usage.get("completion_tokens") or 0) / len(answers)
        thoughts = ((usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0) / len(
            answers
        )
        choices = [_choice(answer, share, thoughts) for answer in answers]
        prompt_tokens = int(usage.get("prompt_tokens") or 0)
    except (ValueError, LookupError, TypeError, AttributeError):
        return Failure(reason=f"not a chat completion: {own_words(content)}"), None
    return Reply(choices=choices, prompt_tokens=prompt_tokens), None


def _choice(answer: dict[str, Any], share: float, thoughts: float) -> Choice:
    """One answer.

    Args:
        share: of the reply's tokens, for servers that do not tell each answer's.
        thoughts: of those, the tokens that the server counts as thoughts; 0 where it does not tell.
    """
    message = answer["message"]
    text = _writable(_said(message.get("content")) or message.get("refusal") or "")
    reasoning = _writable(_thoughts(message))
    num_tokens, finish_reason = (
        len(answer.get("token_ids") or ()) or round(share),
        answer.get("finish_reason"),
    )
    if reasoning:
        text = text.strip()
        counted = num_tokens - round(thoughts)
        num_tokens = counted if thoughts else share_of_tokens(num_tokens, Said(reasoning, text))
        finish_reason = finish_reason if text else "length"
    return Choice(
        text=text,
        reasoning=reasoning,
        unclosed=bool(reasoning) and not text,
        finish_reason=finish_reason or "",
        num_tokens=num_tokens,
        first_logprobs=_first_logprobs(answer.get("logprobs")),
        token_ids=answer.get("token_ids") or [],
    )


def _said(content: Any) -> str:
    """A message's text; of a list of parts the texts, without thoughts."""
    if isinstance(content, list):
        return "".join(part if isinstance(part, str) else str(part.get("text") or "") for part in content)
    return str(content or "")


def _thoughts(message: Mapping[str, Any]) -> str:
    """The thoughts that a server tells beside the text: vLLM's and SGLang's field, and OpenRouter's, which is
    vLLM's newer name; or parts of the content, as Mistral's."""
    for name in ("reasoning", "reasoning_content"):
        if isinstance(message.get(name), str) and message[name]:
            return message[name].strip()
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    inside = (part["thinking"] for part in parts if isinstance(part, dict) and part.get("thinking"))
    return "\n".join(text for found in inside if (text := found if isinstance(found, str) else _said(found)))


def _writable(text: str) -> str:
    """Half a surrogate pair, which no file can hold, becomes the replacement character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _first_logprobs(logprobs: dict[str, Any] | None) -> dict[str, float]:
    """Spelling -> log-probability at the first position; equal spellings of several tokens add up."""
    found: dict[str, float] = {}
    positions = (logprobs or {}).get("content") or []
    for item in (positions[0].get("top_logprobs") or []) if positions else []:
        earlier = found.get(item["token"])
        found[item["token"]] = _log_sum(earlier, item["logprob"]) if earlier is not None else item["logprob"]
    return found


def _log_sum(a: float, b: float) -> float:
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


def _gone(server: Server, words: str) -> AlignError:
    own = server.process is not None  # one that a recipe's `serve` section started
    memory = "max_num_seqs or kv_cache_gb in the section `serve`" if own else "what it decodes at once"
    return AlignError(
        f"the server stopped answering: {words}",
        where=str(server.log_path or server.url),
        fix=f"run again: what was answered is kept. Out of memory? Lower {memory}",
    )
