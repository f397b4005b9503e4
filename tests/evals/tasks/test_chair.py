"""CHAIR: the corpus worked by hand, real captions with a published result, and where mentions stand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from align.errors import AlignError, RecipeError
from align.rows.schema import Prediction
from evals.comparison.lines import compare_task
from evals.tasks.registry import load_tasks
from evals.tasks.task import Task
from tests.repository import BENCHMARKS

FOLDER = BENCHMARKS / "chair"
TRUTH = {"1": ["person", "dog"], "2": ["car"], "3": ["cat", "bed"]}
CAPTIONS = ["A man and a dog and a cat. The man sits on a chair.", "The sky is blue.", "A cat on a bed."]


def load(tmp_path: Path, **section: Any) -> Task:
    if "instances" not in section:
        path = tmp_path / "objects.json"
        path.write_text(json.dumps(TRUTH))
        section["objects"] = str(path)
    return load_tasks({"chair": {"type": "chair", "image_root": str(tmp_path), **section}})["chair"]


def values(task: Task, captions: Sequence[str]) -> dict[str, float]:
    scores = [
        task.score(sample, Prediction(key="k", task=task.name, sample_id=sample.id, text=text))
        for sample, text in zip(task.samples(), captions, strict=True)
    ]
    return {row.metric: row.values["base"] or 0.0 for row in compare_task(task, {"base": scores}, 100, [0])}


def test_corpus_worked_by_hand(tmp_path: Path) -> None:
    found = values(load(tmp_path), CAPTIONS)
    assert found["chair_s"] == pytest.approx(100 / 3, abs=1e-4)
    assert found["chair_i"] == pytest.approx(28.5714, abs=1e-4)
    assert found["recall"] == pytest.approx(80.0)
    assert found["words"] == pytest.approx((14 + 4 + 5) / 3, abs=1e-6)
    assert found["mentions_per_caption"] == pytest.approx(7 / 3, abs=1e-6)


def test_repeats_count_as_mentions_but_not_in_recall(tmp_path: Path) -> None:
    found = values(load(tmp_path), ["A dog, a dog, a dog and a bed.", "A car and a car.", ""])
    assert found["chair_i"] == pytest.approx(100 * 1 / 6, abs=1e-4)
    assert found["recall"] == pytest.approx(100 * 2 / 5)


def test_strict_sees_what_official_cannot(tmp_path: Path) -> None:
    found = values(load(tmp_path), ["A bus and a dog.", "There is no dog near the car.", "A cat."])
    assert found["chair_i"] == pytest.approx(25.0)  # dog, dog (denied), car, cat
    assert found["chair_i_strict"] == pytest.approx(25.0)  # bus, dog, car, cat
    assert found["chair_s"] == pytest.approx(found["chair_s_strict"])


def test_mentions_carry_their_place(tmp_path: Path) -> None:
    task = load(tmp_path)
    sample = task.samples()[0]
    score = task.score(sample, Prediction(key="k", task="chair", sample_id="1", text=CAPTIONS[0]))
    places = [(m["text"], m["invented"], m["sentence"], m["word"]) for m in score.meta["mentions"]]
    assert places == [
        ("man", False, 0, 1),
        ("dog", False, 0, 4),
        ("cat", True, 0, 7),
        ("man", False, 1, 9),
        ("chair", True, 1, 13),
    ]
    assert all(CAPTIONS[0][m["start"] : m["end"]] == m["text"] for m in score.meta["mentions"])
    assert score.meta["image"] == "COCO_val2014_000000000001.jpg" and score.meta["text"] == CAPTIONS[0]


def test_truth_is_instances_and_captions(tmp_path: Path) -> None:
    instances = {
        "images": [{"id": 7, "file_name": "7.png"}, {"id": 8, "file_name": "8.png"}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "bus"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1},
            {"id": 2, "image_id": 7, "category_id": 2},
        ],
    }
    captions = {"annotations": [{"id": 1, "image_id": 7, "caption": "A man and a bus."}]}
    for name, content in (("instances", instances), ("captions", captions)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    files = {name: str(tmp_path / f"{name}.json") for name in ("instances", "captions")}
    samples = load(tmp_path, **files).samples()
    assert [sample.reference["official"] for sample in samples] == [["bus", "dog", "person"], []]
    assert [sample.images for sample in samples] == [["7.png"], ["8.png"]]
    assert len(load(tmp_path, num_images=1, **files).samples()) == 1


def test_sources_are_checked(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"tasks\.chair: set exactly one of instances and objects"):
        load(tmp_path, instances="a.json", objects="b.json")
    with pytest.raises(AlignError, match=r"cannot read .*a\.json"):
        load(tmp_path, instances=str(tmp_path / "a.json")).samples()


def test_real_captions_give_the_published_result() -> None:
    if not FOLDER.is_dir():
        pytest.skip("no published captions beside the repository")
    lines = (FOLDER / "llava-1.5-7b_greedy_captions.jsonl").read_text().splitlines()
    captions = {str(row["image_id"]): row["caption"] for row in map(json.loads, lines)}
    section = {"type": "chair", "image_root": ".", "objects": str(FOLDER / "gt_objects_500.json")}
    task = load_tasks({"chair": section})["chair"]
    found = values(task, [captions[sample.id] for sample in task.samples()])
    assert found["chair_s"] == pytest.approx(45.0, abs=0.4)
    assert found["chair_i"] == pytest.approx(12.8, abs=0.4)
    assert found["recall"] == pytest.approx(79.8, abs=0.4)
