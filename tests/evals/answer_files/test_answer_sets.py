"""A file of answers is read without changing the task that reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evals.protocol import AnswerSet
from evals.score import score_predictions
from evals.score_file import open_task, score_file
from evals.tasks.task import Task


def write(path: Path, rows: list[Any] | dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = rows if isinstance(rows, list) and path.suffix == ".jsonl" else None
    path.write_text("".join(json.dumps(row) + "\n" for row in lines) if lines else json.dumps(rows))
    return path


@pytest.fixture
def pope(tmp_path: Path) -> Task:
    for variant, thing in (("random", "dog"), ("popular", "cat")):
        rows = [
            {"question_id": number, "image": f"{number}.jpg", "text": f"Is there a {thing}?", "label": label}
            for number, label in ((1, "yes"), (2, "no"))
        ]
        write(tmp_path / f"coco_pope_{variant}.jsonl", rows)
    return open_task("pope", tmp_path)


def answers(tmp_path: Path, thing: str) -> Path:
    rows = [{"question": f"Is there a {thing}?", "image": f"{k}.jpg", "answer": "yes"} for k in (1, 2)]
    return write(tmp_path / f"{thing}.jsonl", rows)


def test_pope_reads_one_variant_after_the_other(pope: Task, tmp_path: Path) -> None:
    """The second file is about a variant that the first one does not answer."""
    asked, lines = pope.samples(), list(pope.metrics)
    for thing, variant in (("dog", "random"), ("cat", "popular")):
        found = pope.read_answers(answers(tmp_path, thing))
        assert {sample.subsets for sample in found.samples} == {(variant,)}
        assert {row.sample_id for row in found.predictions} == {sample.id for sample in found.samples}
        assert score_file(pope, tmp_path / f"{thing}.jsonl").metrics["accuracy"] == 50.0
    assert pope.samples() == asked and list(pope.metrics) == lines
    assert {sample.subsets for sample in asked} == {("random",), ("popular",)}


def test_dash_b_asks_a_picture_that_only_a_file_has_for_that_file_alone(tmp_path: Path) -> None:
    lists = {
        name: write(tmp_path / f"{name}.json", {"coco": {"dog": [f"{name}.jpg"]}})
        for name in ("negatives", "positives")
    }
    task = open_task("dash_b", None, [f"{name}={path}" for name, path in lists.items()])
    row = {"object_name": "dog", "img_id": "else.jpg", "gt": "yes", "response": "yes"}
    found = task.read_answers(write(tmp_path / "a.jsonl", [row]))
    assert [sample.id for sample in found.samples][2:] == ["file/yes/dog/else.jpg"]
    assert len(task.samples()) == 2 and task.samples_of({"file/yes/dog/else.jpg"}) == []


def test_mme_reads_the_same_folder_twice(tmp_path: Path) -> None:
    (tmp_path / "count.txt").write_text("1.jpg\tOne?\tYes\tyes\n1.jpg\tTwo?\tNo\tno\n")
    task = open_task("mme", None, ["parts=[count]"])
    first, second = (task.read_answers(tmp_path) for _ in range(2))
    assert first == second and len(first.samples) == 2
    scored = score_predictions(task, first.predictions, samples=first.samples)
    assert scored.scores[0].values["images"] == 1.0 and scored.scores[0].values["both"] == 1.0


def test_a_judges_verdicts_in_a_file_are_of_that_file(tmp_path: Path) -> None:
    objects = write(tmp_path / "objects.json", {"1": ["dog"], "2": ["cat"]})
    task: Any = open_task("objhal", None, [f"objects={objects}"])
    row = {"image_id": 1, "question": "What is there?", "caption": "A dog and a cat.", "objs": ["dog"]}
    found = task.read_answers(write(tmp_path / "a.jsonl", [row]))
    assert isinstance(found, AnswerSet) and [sample.id for sample in found.samples] == ["1"]
    assert found.samples[0].meta["question"] == "What is there?"
    assert task.told == {} and task.judgements == {}
    assert [row.verdict for row in found.told["1"]] == [["dog"]]
