"""A judge at an endpoint as a measure of the dev check, against a stand-in server."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from align.dev_check.asked import Asked
from align.dev_check.judge import Judge
from align.dev_check.recipe import DevSection, JudgeSection
from align.errors import AlignError
from align.rows.schema import Message
from align.serving import client
from tests.chat_server import ChatServer

ANSWERS = ["A dog and a cat.", "A dog.", "Nothing is there."]


@pytest.fixture
def asked(tmp_path: Path) -> list[Asked]:
    found = []
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        turns = (Message(role="user", content="Describe {answer}."),)
        found.append(
            Asked(f"d{number}", "description", (f"{number}.png",), turns, 8, f"{number}.png", is_judged=True)
        )
    return found


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_BACKOFF_SECONDS", 0.001)


def judge(server: ChatServer, root: Path, **settings: Any) -> Judge:
    section = JudgeSection.model_validate({"endpoint": server.url, **settings})
    return Judge(section, root, root / "replies.jsonl")


def says_dogs(question: str) -> str:
    return "Yes, there is." if "dog" in question else "No."


def test_claims_are_asked_once_and_by_object(asked: list[Asked], tmp_path: Path) -> None:
    with ChatServer(says_dogs) as server:
        first = judge(server, tmp_path)
        found = first.judge(asked, ANSWERS)
        assert list(found.values) == [
            {"judge_points": 1.0, "judged": 2.0},
            {"judge_points": 1.0, "judged": 1.0},
            {},
        ]
        assert (found.asked, found.failed, found.is_usable) == (3, 0, True)
        assert first.judge(asked, ANSWERS) == found
        assert judge(server, tmp_path).judge(asked, ANSWERS) == found, "a resumed run"
        assert server.answered.total() == 3
        assert "Is there any dog in this image? Answer with yes or no only." in server.answered


def test_a_rating_reads_the_first_number_on_its_scale(asked: list[Asked], tmp_path: Path) -> None:
    replies = {"A dog and a cat.": "7 of 10", "A dog.": "I give it 10.", "Nothing is there.": "eleven: 11"}
    prompt = "{question} {answer}"

    def say(question: str) -> str:
        assert question.startswith("Describe {answer}. ")
        return replies[question.removeprefix("Describe {answer}. ")]

    with ChatServer(say) as server:
        found = judge(server, tmp_path, ask="rating", prompt=prompt, max_failed=0.5).judge(asked, ANSWERS)
    assert [own.get("judge_points") for own in found.values] == [pytest.approx(6 / 9), 1.0, None]
    assert (found.failed, found.is_usable) == (1, True)
    assert found.reason == "unreadable reply: 'eleven: 11'"


def test_a_dead_server_is_a_failure_and_no_zero(asked: list[Asked], tmp_path: Path) -> None:
    with ChatServer(says_dogs, dies_after=0) as server:
        found = judge(server, tmp_path, concurrency=1).judge(asked, ANSWERS)
    assert list(found.values) == [{}, {}, {}]
    assert (found.failed, found.is_usable) == (3, False)
    assert "stopped answering" in found.reason or "not asked" in found.reason
    with pytest.raises(AlignError, match=r"no OpenAI-compatible server(.|\n)*dev\.judge\.endpoint"):
        judge(server, tmp_path)


def test_answers_that_name_nothing_are_not_judged_zero(asked: list[Asked], tmp_path: Path) -> None:
    with ChatServer(says_dogs) as server:
        found = judge(server, tmp_path).judge(asked, ["", "", ""])
    assert (found.is_usable, found.reason) == (False, "no answer names an object")
    assert judge_of(asked, found) == 0


def judge_of(asked: list[Asked], found: Any) -> float:
    return sum(own.get("judged", 0.0) for own in found.values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ask": "rating"}, r"must contain \{answer\}"),
        ({"prompt": "Is it right?"}, r"must contain \{object\}"),
        ({"scale": [5, 1]}, "worst rating comes first"),
    ],
)
def test_wrong_sections_say_so(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        JudgeSection.model_validate({"endpoint": "http://x", **values})
    with pytest.raises(ValueError, match="nothing to judge"):
        DevSection.model_validate({"judge": {"endpoint": "http://x"}, "own": {"path": "x"}})


class _Sayings:
    """A policy that gives the next answers at each check."""

    def __init__(self, *rounds: list[str]) -> None:
        self._rounds = iter(rounds)
        self.features, self.batches = None, [[0]]

    def answers(self, *_: Any) -> list[str]:
        return next(self._rounds)


class _Alone:
    num_processes, process_index = 1, 0

    def unwrap_model(self, model: Any) -> Any:
        return model

    def wait_for_everyone(self) -> None: ...


class _Trainer:
    accelerator = _Alone()
    model: Any = None


@pytest.fixture
def checks(asked: list[Asked], tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Runs the checks 0, 1, 2 of a stage whose policy says `ANSWERS`, then more; the log."""
    from align.dev_check.check import DevCheck
    from align.dev_check.cost import Cost
    from align.run.folder import RunFolder

    def run(server: ChatServer, **settings: Any) -> list[dict[str, Any]]:
        section = DevSection.model_validate(
            {"instances": "x", "every": 1, "judge": {"endpoint": server.url, "concurrency": 1, **settings}}
        )
        assert section.judge is not None

        class Folder:
            is_main, work, scratch, logs = True, tmp_path, tmp_path, tmp_path

        folder: RunFolder = Folder()  # pyright: ignore[reportAssignmentType]
        own = Judge(section.judge, tmp_path, tmp_path / "replies.jsonl")
        policy: Any = _Sayings(ANSWERS, ["A sheep."] * 3, ["A dog."] * 3)
        unknown = [replace(item, truth=None) for item in asked]
        dev = DevCheck(section, None, unknown, policy, Cost(1.0, 1.0), folder, own)
        (tmp_path / "dev_check").mkdir(exist_ok=True)
        dev.plan(2, 1)
        for step in range(3):
            dev.at(step, _Trainer())
        return [json.loads(line) for line in (tmp_path / "dev_log.jsonl").read_text().splitlines()]

    return run


def test_a_check_whose_judge_fails_goes_on_without_it(
    checks: Callable[..., list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    with ChatServer(lambda q: "maybe" if "sheep" in q else says_dogs(q)) as server:
        log = checks(server)
    assert log[0]["all"]["judge"]["value"] == pytest.approx(100 * 2 / 3, abs=0.01)
    assert "judge" not in log[1]["all"] and log[1]["judge"]["failed"] == 3
    assert log[2]["all"]["judge"]["value"] == 100.0
    assert "this check has no judge" in capsys.readouterr().out


def test_a_judge_that_fails_stops_the_run_where_told_and_at_step_0(
    checks: Callable[..., list[dict[str, Any]]],
) -> None:
    with (
        ChatServer(lambda q: "maybe" if "sheep" in q else says_dogs(q)) as server,
        pytest.raises(AlignError, match="step 1: 3 of 3 requests failed, the first one: unreadable"),
    ):
        checks(server, on_failure="stop")


def test_a_judge_that_fails_at_step_0_always_stops_the_run(
    checks: Callable[..., list[dict[str, Any]]],
) -> None:
    with (
        ChatServer(lambda q: "maybe") as server,
        pytest.raises(AlignError, match="step 0: 3 of 3 requests failed"),
    ):
        checks(server)
