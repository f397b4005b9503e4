"""Servers that are not vLLM: limits, silence, other paths, refused fields, other replies."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from align.errors import AlignError, RecipeError
from align.judging.endpoint import Endpoint, connect
from align.rows.schema import Message
from align.serving import client
from align.serving.client import ChatRequest, Failure, Reply, Sampling, ask
from align.serving.server import Server
from align.serving.wire import Patience, refused_field

YES = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "Yes"}}], "usage": {}}
Said = tuple[int, Any] | tuple[int, Any, dict[str, str]] | None


@contextmanager
def server(
    say: Callable[[int, dict[str, Any]], Said], **patience: float
) -> Iterator[tuple[Server, list[str]]]:
    """An HTTP server: (number of the request, its body) -> status, JSON, headers; None hangs up."""
    paths: list[str] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                paths.append(self.path)
                number = len(paths)
            said = say(number, body)
            if said is None:
                self.close_connection = True
                return
            data = json.dumps(said[1]).encode()
            self.send_response(said[0])
            for name, value in (said[2] if len(said) > 2 else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield (
            Server(
                f"http://127.0.0.1:{http.server_port}/v1",
                "m",
                "d",
                is_vllm=False,
                patience=Patience(**patience),
            ),
            paths,
        )
    finally:
        http.shutdown()
        http.server_close()


def ask_many(
    to: Server, number: int = 1, sampling: Sampling | None = None, **fields: Any
) -> list[Reply | Failure]:
    got: dict[str, Reply | Failure] = {}
    requests = [
        (
            str(n),
            ChatRequest([Message(role="user", content=f"{n}?")], sampling=sampling or Sampling(), **fields),
        )
        for n in range(number)
    ]
    ask(to, requests, got.__setitem__)
    return [got[key] for key, _ in requests]


def test_a_limit_of_requests_is_waited_out() -> None:
    """Four a tenth of a second: all of twenty are answered in one go, and nothing is sent while held."""
    granted: list[float] = []

    def say(number: int, body: dict[str, Any]) -> Said:
        now = time.monotonic()
        if len([at for at in granted if now - at < 0.1]) >= 4:
            return 429, {"error": {"message": "slow down"}}, {"Retry-After": "0.1"}
        granted.append(now)
        return 200, YES

    with server(say) as (to, paths):
        assert all(isinstance(reply, Reply) for reply in ask_many(to, 20))
    assert 20 <= len(paths) < 120


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_pass_is_asked_again(status: int, capsys: pytest.CaptureFixture[str]) -> None:
    with server(lambda n, _: (status, {"error": "busy"}) if n == 1 else (200, YES)) as (to, paths):
        assert isinstance(ask_many(to)[0], Reply) and len(paths) == 2
    # A date in two seconds.
    header = {"Retry-After": formatdate(time.time() + 2, usegmt=True)}
    began = time.monotonic()
    with server(lambda n, _: (status, {}, header) if n == 1 else (200, YES)) as (to, paths):
        assert isinstance(ask_many(to)[0], Reply) and time.monotonic() - began > 0.9
    assert "asks to wait" not in capsys.readouterr().out  # short waits go without a word


def test_waiting_ends_at_the_set_time() -> None:
    with server(lambda n, _: (429, {"error": "busy"}, {"Retry-After": "30"}), retry_seconds=5) as (to, paths):
        assert ask_many(to) == [Failure(reason="HTTP 429: busy (asked 1 times, retry_seconds: 5)")]
    quota = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    with server(lambda n, _: (429, quota)) as (to, paths):
        assert (
            ask_many(to) == [Failure(reason="HTTP 429: You exceeded your current quota")] and len(paths) == 1
        )


def test_a_lost_connection_is_asked_again() -> None:
    with server(lambda n, _: None if n == 1 else (200, YES)) as (to, paths):
        assert isinstance(ask_many(to)[0], Reply) and len(paths) == 2


def test_silence_is_said_and_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "_SAY_SECONDS", 0.2)

    def say(number: int, body: dict[str, Any]) -> Said:
        if number == 1:
            time.sleep(1.5)
        return 200, YES

    with server(say, timeout_seconds=1.0) as (to, paths):
        assert isinstance(ask_many(to)[0], Reply) and len(paths) == 2
    assert "no answer from" in (said := capsys.readouterr().out)
    assert "1 requests wait, each up to timeout_seconds: 1, and are then asked again" in said


@pytest.mark.parametrize(
    "reply",
    [
        {"choices": [{"message": {"content": "Yes"}}]},
        {"choices": [{"message": {"content": "Yes"}, "finish_reason": None}], "usage": None},
        {
            "choices": [
                {
                    "message": {
                        "content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Yes"}]
                    }
                }
            ]
        },
        {
            "choices": [{"message": {"content": "Yes"}, "logprobs": {"content": [{"token": "Yes"}]}}],
            "error": None,
        },
    ],
)
def test_a_reply_without_index_or_usage_is_read(reply: dict[str, Any]) -> None:
    with server(lambda n, _: (200, reply)) as (to, _):
        found = ask_many(to)[0]
    assert isinstance(found, Reply) and found.choices[0].text == "Yes" and found.choices[0].num_tokens == 0


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ({"error": {"message": "no credit left"}}, "the server says: no credit left"),
        ({"error": "model is loading"}, "the server says: model is loading"),
        ({"error": {"code": "x", "message": "m"}, "choices": []}, "the server says: m"),
        ({"code": 1113, "msg": "account in arrears"}, "not a chat completion: account in arrears"),
        ({"detail": "Not Found"}, "not a chat completion: Not Found"),
    ],
)
def test_an_error_with_status_200_has_the_servers_words(reply: dict[str, Any], words: str) -> None:
    with server(lambda n, _: (200, reply)) as (to, _):
        assert ask_many(to) == [Failure(reason=words)]
    busy = {"error": {"code": 429, "message": "busy"}}
    with server(lambda n, _: (200, busy if n == 1 else YES)) as (to, _):
        assert isinstance(ask_many(to)[0], Reply)


def openai(name: str, instead: str = "") -> dict[str, Any]:
    words = f"Unsupported parameter: '{name}' is not supported with this model.{instead}"
    return {"error": {"message": words, "param": name, "code": "unsupported_parameter"}}


def test_fields_that_a_server_refuses_are_left_out_once_and_noted(capsys: pytest.CaptureFixture[str]) -> None:
    bodies: list[dict[str, Any]] = []

    def say(number: int, body: dict[str, Any]) -> Said:
        bodies.append(body)
        if "max_tokens" in body:
            return 400, openai("max_tokens", " Use 'max_completion_tokens' instead.")
        if "temperature" in body:
            return 400, openai("temperature")
        if "seed" in body:
            return 422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}
        if "n" in body:
            return 400, {"message": "property 'n' is unsupported, did you mean 'N'?"}
        if "stop" in body:
            return 400, {"error": {"message": "[] is too short - 'stop'"}}
        return (400, openai("logprobs")) if "logprobs" in body else (200, YES)

    with server(say) as (to, paths):
        first, *_ = ask_many(to, top_logprobs=5)
        asked_for_one = len(paths)
        ask_many(to, 3, top_logprobs=5)
    assert asked_for_one == 7 and len(paths) == 10
    assert isinstance(first, Reply) and set(first.left_out) == {
        "logprobs",
        "max_tokens (sent as max_completion_tokens)",
        "n",
        "seed",
        "stop",
        "temperature",
    }
    assert bodies[-1]["max_completion_tokens"] == 64 and "top_logprobs" not in bodies[-1]
    assert capsys.readouterr().out.count("left out from here on") == 6


def test_what_would_change_the_answer_is_not_left_out() -> None:
    with server(lambda n, _: (400, openai("stop"))) as (to, paths):
        found = ask_many(to, sampling=Sampling(stop=["\n"]))[0]
    assert isinstance(found, Failure) and "'stop' is not supported" in found.reason and len(paths) == 1
    with server(lambda n, _: (400, openai("n"))) as (to, paths):
        assert isinstance(ask_many(to, sampling=Sampling(n=2))[0], Failure) and len(paths) == 1


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (
            '{"error": {"message": "Invalid JSON payload. Unknown name \\"seed\\": Cannot find field."}}',
            "seed",
        ),
        ('{"error": {"message": "temperature: Extra inputs are not permitted"}}', "temperature"),
        ('{"error": "`temperature` must be strictly positive"}', "temperature"),
        (
            '{"error": {"message": "Unrecognized request argument supplied: frequency_penalty"}}',
            "frequency_penalty",
        ),
        ('{"message": "This model\'s maximum context length is 4096, reduce max_tokens"}', None),
        ('{"message": "max_tokens must be at most 8192"}', None),
        ('{"message": "Unknown model: n"}', None),
        ('{"message": "image is not supported, stop"}', None),
    ],
)
def test_which_field_is_refused(words: str, field: str | None) -> None:
    sent = dict.fromkeys(("max_tokens", "temperature", "seed", "frequency_penalty"), 1) | {"n": 1, "stop": []}
    assert refused_field(400, words.encode(), sent) == field
    assert refused_field(404, words.encode(), sent) is None


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/v1beta/openai/", "/v1beta/openai/chat/completions"),
        ("/api/paas/v4", "/api/paas/v4/chat/completions"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/deployments/d?api-version=2", "/openai/deployments/d/chat/completions?api-version=2"),
    ],
)
def test_any_path_and_no_list_of_models_where_one_is_named(path: str, asked: str) -> None:
    with server(lambda n, body: (200, YES) if body["model"] == "mine" else (404, {})) as (to, paths):
        host = to.url.removesuffix("/v1")
        found = connect(Endpoint(endpoint=host + path, model="mine"), "judge.endpoint")
        assert isinstance(ask_many(found)[0], Reply) and paths == [asked] and not found.is_vllm
        with pytest.raises(AlignError, match="answers at") as error:
            connect(Endpoint(endpoint=host + path), "judge.endpoint")
    assert "needs judge.model" in (error.value.fix or "")


def test_time_out_and_retries_are_keys_of_an_endpoint() -> None:
    with server(lambda n, _: (200, YES)) as (to, _):
        section = Endpoint(endpoint=to.url, model="m", timeout_seconds=7, retry_seconds=3)
        found = connect(section, "judge.endpoint").patience
        assert (found.timeout_seconds, found.retry_seconds) == (7, 3)
    with pytest.raises(AlignError, match="no OpenAI-compatible server answers"):
        connect(Endpoint(endpoint="http://127.0.0.1:9/v1", model="m"), "judge.endpoint")
    with pytest.raises(ValueError, match="must begin with http"):
        Endpoint(endpoint="localhost:8000/v1")
    assert issubclass(RecipeError, AlignError)


@pytest.mark.parametrize(
    "message",
    [
        {"content": "Yes", "reasoning": "One, two."},
        {"content": "\n\nYes", "reasoning_content": " One, two."},
        {"content": "<think>One, two.</think>Yes"},
        {"content": "One, two.</think>Yes"},
        {"content": [{"type": "thinking", "thinking": "One, two."}, {"type": "text", "text": "Yes"}]},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "One, two."}]},
                {"type": "text", "text": "Yes"},
            ]
        },
    ],
)
def test_thoughts_are_kept_apart_however_a_server_tells_them(message: dict[str, Any]) -> None:
    """Nine characters and three: a quarter of 12 tokens, unless the server counts the thoughts."""
    reply: dict[str, Any] = {
        "choices": [{"message": message, "finish_reason": "stop"}],
        "usage": {"completion_tokens": 12},
    }
    with server(lambda n, _: (200, reply)) as (to, _):
        found = ask_many(to)[0]
    assert isinstance(found, Reply)
    choice = found.choices[0]
    assert (choice.text, choice.reasoning, choice.finish_reason) == ("Yes", "One, two.", "stop")
    assert choice.num_tokens == 3 and choice.thinks and not choice.unclosed
    if "reasoning" in message:
        reply["usage"]["completion_tokens_details"] = {"reasoning_tokens": 10}
        with server(lambda n, _: (200, reply)) as (to, _):
            found = ask_many(to)[0]
        assert isinstance(found, Reply) and found.choices[0].num_tokens == 2


@pytest.mark.parametrize("message", [{"content": None, "reasoning": "One,"}, {"content": "<think>One,"}])
def test_thoughts_that_do_not_end_are_a_truncation(message: dict[str, Any]) -> None:
    reply = {"choices": [{"message": message, "finish_reason": "stop"}]}
    with server(lambda n, _: (200, reply)) as (to, _):
        found = ask_many(to)[0]
    assert isinstance(found, Reply)
    choice = found.choices[0]
    assert (choice.text, choice.reasoning, choice.finish_reason, choice.unclosed) == (
        "",
        "One,",
        "length",
        True,
    )
