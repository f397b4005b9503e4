"""VQAv2 accuracy: VQAEval's normaliser and its gate, and accuracy by kind of question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align.errors import AlignError
from align.rows.schema import Prediction
from align.scoring.normalise import normalise
from align.scoring.vqa_accuracy import vqa_accuracy
from evals.comparison.lines import compare_task
from evals.tasks.registry import load_tasks
from evals.tasks.task import Task


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("A red, bus.", "red bus"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("3.", "3"),
        ("U.S.A.", "usa"),
        ("yes/no", "yes no"),
        ("one-way", "1 way"),
        ("None", "0"),
        ("dont know", "don't know"),
        ("the", ""),
        ("couldn'tve", "couldn't've"),
        ("y'alld've", "y'all'd've"),
        ("yall'd've", "y'all'd've"),
    ],
)
def test_normaliser(text: str, normal: str) -> None:
    assert normalise(text) == normal


@pytest.mark.parametrize(("matches", "percent"), [(0, 0), (1, 30), (2, 60), (3, 90), (4, 100), (9, 100)])
def test_accuracy_by_number_of_matching_annotators(matches: int, percent: int) -> None:
    annotators = ["dog"] * matches + ["cat"] * (10 - matches)
    assert 100 * vqa_accuracy("dog", annotators) == pytest.approx(percent)


@pytest.mark.parametrize(
    ("answer", "annotators", "official", "strict"),
    [
        ("Yes", ["yes"] * 10, 0.0, 1.0),
        ("yes\n", ["yes"] * 10, 1.0, 1.0),
        ("Yes.", ["yes"] * 9 + ["no"], 1.0, 1.0),
        ("two", ["2"] * 10, 0.0, 1.0),
        ("two", ["2"] * 9 + ["3"], 1.0, 1.0),
        ("", ["yes"] * 10, 0.0, 0.0),
    ],
)
def test_official_normalises_only_where_annotators_disagree(
    answer: str, annotators: list[str], official: float, strict: float
) -> None:
    assert vqa_accuracy(answer, annotators) == pytest.approx(official)
    assert vqa_accuracy(answer, annotators, "strict") == pytest.approx(strict)


def load(tmp_path: Path, rows: list[tuple[int, str, str]], **options: Any) -> Task:
    questions = [
        {"question_id": i, "image_id": image, "question": f"{kind}?"}
        for i, (image, kind, _) in enumerate(rows)
    ]
    annotations = [
        {"question_id": i, "image_id": image, "question_type": kind, "answers": [{"answer": answer}] * 10}
        for i, (image, kind, answer) in enumerate(rows)
    ]
    (tmp_path / "q.json").write_text(json.dumps({"questions": questions}))
    (tmp_path / "a.json").write_text(json.dumps({"annotations": annotations[::-1]}))
    section = {
        "type": "vqa",
        "image_root": str(tmp_path),
        "questions": str(tmp_path / "q.json"),
        "annotations": str(tmp_path / "a.json"),
        "file_name": "{image_id:012d}.png",
    }
    return load_tasks({"vqa": section | options})["vqa"]


ROWS = [(1, "how many", "2"), (1, "exists", "yes"), (2, "exists", "no"), (3, "exists", "yes")]


def test_accuracy_overall_by_kind_and_as_mean_of_kinds(tmp_path: Path) -> None:
    task = load(tmp_path, ROWS)
    samples = task.samples()
    assert samples[0].images == ["000000000001.png"]
    assert samples[0].messages[0].content == "how many?\nAnswer the question using a single word or phrase."
    scores = [
        task.score(sample, Prediction(key="k", task="vqa", sample_id=sample.id, text=text))
        for sample, text in zip(samples, ["3", "yes", "no", "Yes"], strict=True)
    ]
    rows = {(r.metric, r.split): r for r in compare_task(task, {"base": scores}, 100, [0])}
    found = {key: row.values["base"] for key, row in rows.items()}
    assert found["accuracy", "test"] == pytest.approx(50.0)
    assert found["accuracy_strict", "test"] == pytest.approx(75.0)
    assert found["accuracy", "test/exists"] == pytest.approx(66.6667, abs=1e-4)
    assert found["accuracy", "test/how many"] == 0.0
    assert found["accuracy", "test/mean of kinds"] == pytest.approx(33.3333, abs=1e-4)
    assert (rows["accuracy", "test"].n, rows["accuracy", "test"].clusters) == (4, 3)
    assert (rows["accuracy", "test/exists"].n, rows["accuracy", "test/exists"].clusters) == (3, 3)
    assert [key for key, row in rows.items() if row.primary] == [("accuracy", "test")]


def test_strict_can_be_primary(tmp_path: Path) -> None:
    metrics = load(tmp_path, ROWS, primary_mode="strict").metrics
    assert [metric.name for metric in metrics if metric.primary] == ["accuracy_strict"]


def test_sampling_questions_is_seeded(tmp_path: Path) -> None:
    one, two = (load(tmp_path, ROWS, num_questions=2, seed=1).samples() for _ in range(2))
    assert one == two and len(one) == 2


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    task = load(tmp_path, ROWS)
    (tmp_path / "a.json").write_text(json.dumps({"annotations": []}))
    with pytest.raises(AlignError, match=r"a\.json"):
        task.samples()
    (tmp_path / "q.json").write_text("[")
    with pytest.raises(AlignError, match="not JSON"):
        task.samples()
