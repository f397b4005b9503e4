"""Generation under kills, and from models that answer anything: nothing lost, nothing asked twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from align.config.recipe import validate
from align.errors import AlignError
from align.rows.schema import Prediction, Score, read_rows
from align.run.folder import RunFolder
from evals import generate, score
from tests.chat_server import ChatServer
from tests.repository import REPO

CONCURRENCY = 4
NUM_QUESTIONS = 60


def recipe(root: Path, url: str, name: str = "generate") -> dict[str, Any]:
    """Sixty questions about six pictures, in two tasks that share half of them."""
    (root / "model").mkdir(exist_ok=True)
    (root / "model" / "config.json").write_text("{}")
    for number in range(6):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(root / f"{number}.png")
    rows = [
        {"id": str(k), "image": f"{k % 6}.png", "question": f"What is {k}?", "answer": str(k)}
        for k in range(NUM_QUESTIONS)
    ]
    for task, part in (("all", rows), ("half", rows[::2])):
        (root / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    tasks = {
        task: {"type": "custom", "path": str(root / f"{task}.jsonl"), "image_root": str(root)}
        for task in ("all", "half")
    }
    for section in tasks.values():
        section["prompt"] = "{question}"
    return {
        "run_dir": str(root / "run"),
        "name": name,
        "model": str(root / "model"),
        "serve": {"endpoint": url},
        "concurrency": CONCURRENCY,
        "tasks": tasks,
    }


def go(values: dict[str, Any]) -> RunFolder:
    return generate.run(validate(generate.Recipe, values, where="test"))


def number_in(question: str) -> str:
    return question.removeprefix("What is ").rstrip("?")


def check_whole(folder: RunFolder) -> None:
    rows = list(read_rows(Prediction, folder.final / "predictions.jsonl"))
    assert len(rows) == NUM_QUESTIONS * 3 // 2 == len({(row.task, row.sample_id) for row in rows})
    assert all(row.text == row.sample_id for row in rows)


def stored(root: Path) -> list[str]:
    store = root / "run" / "generate.partial" / "scratch" / "answers.jsonl"
    return [json.loads(line)["reply"]["choices"][0]["text"] for line in store.read_text().splitlines()]


def test_a_killed_client_asks_nothing_again_that_it_had(tmp_path: Path) -> None:
    with ChatServer(number_in, seconds=0.05) as server:
        values = recipe(tmp_path, server.url)
        path = tmp_path / "recipe.yaml"
        path.write_text(json.dumps(values))
        command = [sys.executable, "-m", "align.cli", "generate", str(path)]
        client = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while server.answered.total() < 15 and client.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        client.kill()
        assert client.wait() < 0
        had = stored(tmp_path)
        assert len(had) == len(set(had)) and 15 - CONCURRENCY <= len(had) < NUM_QUESTIONS
        folder = go(values)
        check_whole(folder)
        assert len(server.answered) == NUM_QUESTIONS == folder.manifest()["metrics"]["requests"]
        assert {server.answered[f"What is {text}?"] for text in had} == {1}
        # Only what was under way when the client died may have been answered into nothing.
        assert server.answered.total() <= NUM_QUESTIONS + CONCURRENCY


def test_a_killed_server_costs_nothing_that_was_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("align.serving.client._BACKOFF_SECONDS", 0.01)
    with ChatServer(number_in, dies_after=25) as server:
        values = recipe(tmp_path, server.url)
        with pytest.raises(AlignError, match="the server stopped answering"):
            go(values)
        first = server.answered
    had = stored(tmp_path)
    assert sorted(had) == sorted(map(number_in, first)) and len(had) == 25
    # What only says how to ask costs none of the answers: another port, fewer at a time, other limits.
    with ChatServer(number_in) as server:
        serve = {"endpoint": server.url, "max_num_seqs": 8, "kv_cache_gb": 0.5}
        check_whole(go({**values, "serve": serve, "concurrency": 2, "max_failed": 0.5}))
        assert (first + server.answered).total() == NUM_QUESTIONS == len(first + server.answered)


_SERVER = """
import sys, time
from tests.chat_server import ChatServer

log = open(sys.argv[1], "a", buffering=1)

def say(question):
    log.write(question + "\\n")
    return question.removeprefix("What is ").rstrip("?")

with ChatServer(say, port=int(sys.argv[2]), seconds=0.03) as server:
    print(server.port, flush=True)
    time.sleep(1e6)
"""


def start_server(log: Path, port: int = 0) -> tuple[subprocess.Popen[str], int]:
    """A chat server in a process of its own that notes what it answers; the process and its port."""
    command = [sys.executable, "-c", _SERVER, str(log), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPO)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_a_server_killed_with_9_costs_only_what_was_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("align.serving.client._BACKOFF_SECONDS", 0.01)
    log = tmp_path / "answered"
    process, port = start_server(log)

    def kill_midway() -> None:
        while not log.exists() or log.read_text().count("\n") < 20:
            time.sleep(0.005)
        process.kill()

    killer = threading.Thread(target=kill_midway)
    killer.start()
    values = recipe(tmp_path, f"http://127.0.0.1:{port}/v1")
    with pytest.raises(AlignError, match="the server stopped answering"):
        go(values)
    killer.join()
    assert process.wait() == -signal.SIGKILL
    had = stored(tmp_path)
    assert 20 - CONCURRENCY <= len(had) == len(set(had)) < NUM_QUESTIONS
    process, _ = start_server(log, port)
    try:
        check_whole(go(values))
    finally:
        process.kill()
        process.wait()
    times = Counter(map(number_in, log.read_text().splitlines()))
    assert len(times) == NUM_QUESTIONS and times.total() <= NUM_QUESTIONS + CONCURRENCY
    assert {times[text] for text in had} == {1}


ANYTHING: list[tuple[str | bytes, str]] = [
    ("<script>alert(1)</script>", "<script>alert(1)</script>"),
    ("a dog " * 170_000, "a dog " * 170_000),
    (b"\xff\xfe dog", "\ufffd\ufffd dog"),  # not UTF-8
    ("\ud800 dog", "\ufffd dog"),  # half a surrogate pair
    ("", ""),
    ("yes", "yes"),
    ("line\nline\u2028\x00\x1b[31m", "line\nline\u2028\x00\x1b[31m"),
]


def test_whatever_a_model_answers_is_kept_and_scored(tmp_path: Path) -> None:
    folders = {}
    for name, shift in (("base", 0), ("tuned", 3)):

        def say(question: str, shift: int = shift) -> str | bytes:
            return ANYTHING[(int(number_in(question)) + shift) % len(ANYTHING)][0]

        with ChatServer(say) as server:
            folders[name] = go(recipe(tmp_path, server.url, name))
        rows = list(read_rows(Prediction, folders[name].final / "predictions.jsonl"))
        expected = [ANYTHING[(int(row.sample_id) + shift) % len(ANYTHING)][1] for row in rows]
        assert [row.text for row in rows] == expected and all(row.error is None for row in rows)
    checkpoints = {name: str(folder.final) for name, folder in folders.items()}
    values = {"run_dir": str(tmp_path / "run"), "checkpoints": checkpoints, "resamples": 200}
    final = score.run(validate(score.Recipe, values, where="test")).final
    health = json.loads((final / "health.json").read_text())["base"]["all"]
    empty = sum(k % len(ANYTHING) == 4 for k in range(NUM_QUESTIONS))
    assert (health["n"], health["empty"], health["failed"]) == (NUM_QUESTIONS, empty, 0)
    scores = list(read_rows(Score, final / "rows" / "base" / "all.jsonl"))
    assert len(scores) == NUM_QUESTIONS


def test_a_model_that_only_says_yes_is_scored_like_any_other(tmp_path: Path) -> None:
    with ChatServer(lambda _: "yes") as server:
        values = recipe(tmp_path, server.url)
        for section in values["tasks"].values():
            rows = [json.loads(line) for line in Path(section["path"]).read_text().splitlines()]
            for row in rows:
                row["answer"] = "no" if int(row["id"]) % 3 else "yes"
            Path(section["path"]).write_text("".join(json.dumps(row) + "\n" for row in rows))
            section["metric"] = "yes_no"
        folder = go(values)
    values = {"run_dir": str(tmp_path / "run"), "checkpoints": {"base": str(folder.final)}, "resamples": 100}
    final = score.run(validate(score.Recipe, values, where="test")).final
    found = {row["metric"]: row["values"]["base"] for row in json.loads((final / "metrics.json").read_text())}
    assert (found["yes_ratio"], found["recall"]) == (100.0, 100.0)
    assert found["f1"] == pytest.approx(50.0) and found["accuracy"] == pytest.approx(100 / 3, abs=1e-4)


def test_an_offline_engine_has_no_endpoint(tmp_path: Path) -> None:
    values = recipe(tmp_path, "http://127.0.0.1:1/v1") | {"engine": "offline"}
    with pytest.raises(AlignError, match="offline asks no server"):
        go(values)
