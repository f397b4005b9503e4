"""Requests under bad luck, and a store that a kill cannot spoil."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from align.errors import AlignError
from align.rows.schema import Message
from align.serving.answers import AnswerStore, ask_stored
from align.serving.client import ChatRequest, Choice, Failure, Reply, Sampling, ask, content_key, request_body
from align.serving.server import Server
from tests.vllm_fixtures import ServedBase

DOG = [Message(role="user", content="Is there a dog in the image?")]


@contextmanager
def faulty_server(statuses: list[int]) -> Iterator[tuple[Server, list[dict]]]:
    """An HTTP server that answers with the statuses in turn, then always 200; keeps what it was asked."""
    asked: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status = statuses.pop(0) if statuses else 200
            message = {"message": {"content": "Yes"}, "index": 0, "finish_reason": "stop"}
            body = {"choices": [message], "usage": {"completion_tokens": 1}}
            data = json.dumps(body if status == 200 else {"error": {"message": f"status {status}"}}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield Server(f"http://127.0.0.1:{http.server_port}/v1", "m", "d", is_vllm=False), asked
    finally:
        http.shutdown()
        http.server_close()


def ask_one(server: Server, **fields) -> Reply | Failure:
    got: dict[str, Reply | Failure] = {}
    ask(server, [("k", ChatRequest(DOG))], got.__setitem__, **fields)
    return got["k"]


def test_server_faults_are_retried_and_refusals_are_not() -> None:
    with faulty_server([503, 500]) as (server, asked):
        reply = ask_one(server)
        assert isinstance(reply, Reply) and reply.choices[0].text == "Yes"
        assert len(asked) == 3
    with faulty_server([400]) as (server, asked):
        assert ask_one(server) == Failure(reason="HTTP 400: status 400")
        assert len(asked) == 1
    with faulty_server([500] * 9) as (server, asked):
        assert ask_one(server, attempts=2) == Failure(reason="HTTP 500: status 500")
        assert len(asked) == 2


def test_a_text_that_the_model_would_take_for_an_image_is_not_sent() -> None:
    spelled = ChatRequest([Message(role="user", content="What does the tag <image> mean?")])
    got: dict[str, Reply | Failure] = {}
    with faulty_server([]) as (server, asked):
        server.image_words = ("<image>",)
        ask(server, [("spelled", spelled), ("plain", ChatRequest(DOG))], got.__setitem__)
        assert len(asked) == 1 and isinstance(got["plain"], Reply)
    failure = got["spelled"]
    assert isinstance(failure, Failure) and "image token '<image>'" in failure.reason


def test_a_reply_that_is_no_completion_is_a_failure() -> None:
    with faulty_server([]) as (server, _):
        got: dict[str, Reply | Failure] = {}
        ask(server, [("k", ChatRequest(DOG, sampling=Sampling(n=2)))], got.__setitem__)
    assert got["k"] == Failure(reason="1 answers instead of 2")


def test_a_dead_server_stops_the_run_after_keeping_what_was_answered(tmp_path: Path) -> None:
    with faulty_server([]) as (server, _), AnswerStore(tmp_path / "s.jsonl") as store:
        ask_stored(server, store, {"a": ChatRequest(DOG)}, "asking")
    with AnswerStore(tmp_path / "s.jsonl") as store:
        with pytest.raises(AlignError, match="the server stopped answering"):
            ask(server, [("b", ChatRequest(DOG))], lambda *_: None, attempts=2)
        assert "a" in store and "b" not in store


def test_no_sampling_field_is_left_to_the_server() -> None:
    body = request_body(
        Server("u", "m", "d"), ChatRequest(DOG, [b"\x89PNG data"], Sampling(), top_logprobs=5)
    )
    pinned = {
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": 0,
        "max_tokens": 64,
        "n": 1,
        "stop": [],
    }
    assert pinned.items() <= body.items()
    assert (body["logprobs"], body["top_logprobs"]) == (True, 5)
    image, text = body["messages"][0]["content"]
    assert image["image_url"]["url"] == "data:image/png;base64,iVBORyBkYXRh"
    assert text == {"type": "text", "text": DOG[0].content}


def test_the_key_is_content_not_place() -> None:
    request = ChatRequest(DOG, [Path("here.png")], Sampling())
    key = content_key("weights", request, ["sha"])
    assert key == content_key("weights", ChatRequest(DOG, [Path("there.png")], Sampling()), ["sha"])
    others = [
        content_key("other weights", request, ["sha"]),
        content_key("weights", request, ["other sha"]),
        content_key("weights", ChatRequest(DOG, sampling=Sampling(seed=1)), ["sha"]),
        content_key("weights", ChatRequest([Message(role="user", content="?")]), ["sha"]),
        content_key("weights", ChatRequest(DOG, top_logprobs=1), ["sha"]),
    ]
    assert len({key, *others}) == 6


def reply(text: str) -> Reply:
    return Reply(choices=[Choice(text=text, finish_reason="stop", num_tokens=1)])


def test_a_torn_last_line_is_cut_off_and_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerStore(path) as store:
        store.add("a", reply("erste\nZeile \U0001f415"))
        store.add("b", reply("two"))
    whole = path.read_bytes()
    for cut in range(len(whole.split(b"\n")[0]) + 1, len(whole)):
        path.write_bytes(whole[:cut])
        with AnswerStore(path) as store:
            assert store["a"] == reply("erste\nZeile \U0001f415") and "b" not in store
            store.add("b", reply("two"))
        assert path.read_bytes() == whole


def test_a_broken_line_in_the_middle_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"key": "a"}\nnot json\n')
    with AnswerStore(path) as store:
        assert (len(store), store.num_torn) == (0, 2)
        store.add("b", reply("two"))
    with AnswerStore(path) as store:
        assert store["b"] == reply("two")


def test_what_is_stored_is_not_asked(tmp_path: Path) -> None:
    requests = {name: ChatRequest([Message(role="user", content=name)]) for name in "abc"}
    with faulty_server([200, 400]) as (server, asked), AnswerStore(tmp_path / "s.jsonl") as store:
        first = ask_stored(server, store, requests, "asking", concurrency=1)
        assert isinstance(first["b"], Failure) and len(store) == 2
        second = ask_stored(server, store, requests, "asking", concurrency=1)
        assert all(isinstance(item, Reply) for item in second.values())
        assert [body["messages"][0]["content"][0]["text"] for body in asked] == ["a", "b", "c", "b"]


@pytest.mark.vllm
def test_real_answers_repeat_and_do_not_depend_on_company(served_base: ServedBase, tiny_world: Path) -> None:
    images = sorted((tiny_world / "images" / "train").glob("*.png"))[:8]
    server = Server(served_base.url, _model(served_base), "d")
    describe = [Message(role="user", content="Please describe this image in detail.")]
    sampling = Sampling(temperature=1.0, n=3, seed=7, max_tokens=24)
    requests = [(image.name, ChatRequest(describe, [image], sampling, top_logprobs=5)) for image in images]
    together: dict[str, Reply | Failure] = {}
    alone: dict[str, Reply | Failure] = {}
    ask(server, requests, together.__setitem__, concurrency=8)
    ask(server, requests[::-1], alone.__setitem__, concurrency=1)
    assert together == alone
    for found in together.values():
        assert isinstance(found, Reply) and len(found.choices) == 3
        assert len({choice.text for choice in found.choices}) > 1
        for choice in found.choices:
            assert 1 <= choice.num_tokens <= 24 and choice.finish_reason in ("stop", "length")
            assert 1 <= len(choice.first_logprobs) <= 6
            assert sum(math.exp(p) for p in choice.first_logprobs.values()) <= 1 + 1e-6


@pytest.mark.vllm
def test_the_judge_question_gets_yes_and_no_log_probs(served_base: ServedBase, tiny_world: Path) -> None:
    from data_tools.material.claims import DEFAULT_QUESTION, ask_about, read_yes_no

    image = min((tiny_world / "images" / "train").glob("*.png"))
    question = [Message(role="user", content=ask_about("dog", DEFAULT_QUESTION))]
    request = ChatRequest(question, [image], Sampling(max_tokens=1), top_logprobs=20)
    got: dict[str, Reply | Failure] = {}
    ask(Server(served_base.url, _model(served_base), "d"), [("k", request)], got.__setitem__)
    found = got["k"]
    assert isinstance(found, Reply) and found.choices[0].num_tokens == 1
    probabilities = read_yes_no(found.choices[0].first_logprobs)
    assert probabilities is not None and 0.5 < sum(probabilities) <= 1 + 1e-6


def _model(served: ServedBase) -> str:
    import httpx

    return httpx.get(f"{served.url}/models", trust_env=False).json()["data"][0]["id"]
