"""POPE: the published parser, the mended one, questions from annotations, and published files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from align.errors import AlignError, RecipeError
from align.rows.schema import Prediction
from evals.comparison.lines import compare_task
from evals.protocol import Metric
from evals.scoring.yes_no import parse_official, parse_strict
from evals.tasks.pope import Pope
from evals.tasks.pope_questions import VARIANTS
from evals.tasks.registry import load_tasks
from evals.tasks.task import Task
from tests.repository import BENCHMARKS

FOLDER = BENCHMARKS / "pope"


@pytest.mark.parametrize(
    ("text", "official", "strict"),
    [
        ("No.", "no", "no"),
        ("no, there is not", "no", "no"),
        ("There is no dog.", "no", "no"),
        ("NO", "yes", "no"),
        ("", "yes", None),
        ("Nope", "yes", "no"),
        ("There isn't a dog", "yes", "no"),
        ("Yes. There is no cat", "yes", "yes"),
        ("Yes", "yes", "yes"),
        ("yes.", "yes", "yes"),
        ("There is a dog.", "yes", "yes"),
        ("maybe", "yes", None),
        ("**Yes**, a cat", "yes", "yes"),
    ],
)
def test_parsers(text: str, official: str, strict: str | None) -> None:
    assert parse_official(text) == official
    assert parse_strict(text) == strict


def build(tmp_path: Path, objects: dict[int, list[str]], categories: list[str], **options: Any) -> Task:
    ids = {name: index for index, name in enumerate(categories, 1)}
    content = {
        "images": [{"id": i, "file_name": f"{i:012d}.png"} for i in objects],
        "categories": [{"id": i, "name": name} for name, i in ids.items()],
        "annotations": [
            {"id": 100 * image + k, "image_id": image, "category_id": ids[name]}
            for image, names in objects.items()
            for k, name in enumerate(names)
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    section = {"type": "pope", "image_root": str(tmp_path), "instances": str(path), **options}
    return load_tasks({"pope": section})["pope"]


WORLD = {
    1: ["cat", "dog", "cup"],
    2: ["cat", "dog", "bed"],
    3: ["cat", "bus", "cup", "cup"],
    4: ["person"],
}
NAMES = ["person", "cat", "dog", "cup", "bed", "bus", "kite"]


def test_absent_objects_follow_the_ranks(tmp_path: Path) -> None:
    samples = build(tmp_path, WORLD, NAMES, prompt="{question}").samples()
    asked = {
        variant: [
            (sample.images[0], sample.meta["question"].split()[3], sample.reference["label"])
            for sample in samples
            if variant in sample.subsets
        ]
        for variant in VARIANTS
    }
    # Sampled images 1 to 3: cat 3, dog 2, cup 2, bed 1, bus 1. Image 3 has cat, bus and cup, so that dog and
    # bed come by rank and the third is a random one.
    popular = [name for image, name, label in asked["popular"] if image.endswith("3.png") and label == "no"]
    assert {"dog", "bed"} < set(popular) and set(popular) & {"person", "kite"}
    # Image 1: beside cat the first absent is bed (ties keep the file's order), beside cup it is bus.
    adversarial = [
        name for image, name, label in asked["adversarial"] if image.endswith("1.png") and label == "no"
    ]
    assert {"bed", "bus"} < set(adversarial)
    for variant, rows in asked.items():
        assert len(set(rows)) == len(rows) == 18, variant
        assert Counter(label for *_, label in rows) == {"yes": 9, "no": 9}
        for image, name, label in rows:
            assert (name in WORLD[int(image[:12])]) == (label == "yes")


def test_questions_are_seeded_shared_ones_asked_once(tmp_path: Path) -> None:
    samples = build(tmp_path, WORLD, NAMES).samples()
    assert samples == build(tmp_path, WORLD, NAMES).samples()
    assert len({sample.id for sample in samples}) == len(samples) < 54
    assert all(sample.subsets == VARIANTS for sample in samples if sample.reference["label"] == "yes")
    assert all("Is there a " in sample.messages[0].content for sample in samples)
    assert {sample.cluster for sample in samples} == {sample.images[0] for sample in samples}


def test_min_objects_is_a_parameter(tmp_path: Path) -> None:
    few = build(tmp_path, WORLD, NAMES, min_objects=1, num_positives=1).samples()
    assert "000000000004.png" in {sample.images[0] for sample in few}
    with pytest.raises(AlignError, match="no image has 9 objects"):
        build(tmp_path, WORLD, NAMES, min_objects=9).samples()


def write_pin(folder: Path) -> tuple[Task, list[Prediction]]:
    """LLaVA's published confusion matrix as questions with one answer each."""
    groups = [("yes", "Yes", 1183), ("no", "Yes", 31), ("no", "No", 1379), ("yes", "No", 317)]
    lines, answers = [], []
    for label, answer, count in groups:
        for _ in range(count):
            lines.append(
                {"question_id": len(lines), "image": f"{len(lines)}.jpg", "text": "Is it?", "label": label}
            )
            answers.append(answer)
    path = folder / "pope.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    section = {"type": "pope", "image_root": str(folder), "files": {"random": str(path)}}
    task = load_tasks({"pope": section})["pope"]
    predictions = [
        Prediction(key="k", task="pope", sample_id=sample.id, text=text)
        for sample, text in zip(task.samples(), answers, strict=True)
    ]
    return task, predictions


def test_metrics_match_llavas_published_counts(tmp_path: Path) -> None:
    task, predictions = write_pin(tmp_path)
    scores = [task.score(sample, answer) for sample, answer in zip(task.samples(), predictions, strict=True)]
    rows = {
        row.metric: row.values["base"]
        for row in compare_task(task, {"base": scores}, 100, [0])
        if row.split == "random"
    }
    assert rows["accuracy"] == pytest.approx(88.0412, abs=1e-4)
    assert rows["precision"] == pytest.approx(97.4465, abs=1e-4)
    assert rows["recall"] == pytest.approx(78.8667, abs=1e-4)
    assert rows["f1"] == pytest.approx(87.1776, abs=1e-4)
    assert rows["yes_ratio"] == pytest.approx(100 * (1183 + 31) / 2910, abs=1e-4)


def test_no_positive_prediction_is_zero_and_flagged(tmp_path: Path) -> None:
    task, predictions = write_pin(tmp_path)
    scores = [
        task.score(s, p.model_copy(update={"text": "No"}))
        for s, p in zip(task.samples(), predictions, strict=True)
    ]
    row = next(row for row in compare_task(task, {"base": scores}, 100, [0]) if row.metric == "precision")
    assert row.values["base"] == 0.0 and row.undefined == ["base"]


def test_strict_counts_what_it_cannot_parse_as_wrong_but_not_as_yes(tmp_path: Path) -> None:
    task = build(tmp_path, WORLD, NAMES)
    present, absent = (
        next(s for s in task.samples() if s.reference["label"] == label) for label in ("yes", "no")
    )
    for sample in (present, absent):
        mark = task.mark(sample, "maybe")
        assert mark.unparsed and mark.values["strict_correct"] == 0.0
        assert mark.values["strict_tp"] == mark.values["strict_fp"] == mark.values["strict_tn"] == 0.0
    assert task.mark(present, "maybe").values["strict_fn"] == 1.0


def test_primary_metrics_are_f1_of_each_variant(tmp_path: Path) -> None:
    task = build(tmp_path, WORLD, NAMES)
    primary: list[Metric] = [metric for metric in task.metrics if metric.primary]
    assert [(metric.name, metric.split) for metric in primary] == [("f1", variant) for variant in VARIANTS]
    assert len({(metric.name, metric.split) for metric in task.metrics}) == len(task.metrics)


def test_published_files_share_their_positives() -> None:
    if not FOLDER.is_dir():
        pytest.skip("no published POPE files beside the repository")
    files = {variant: str(FOLDER / f"coco_pope_{variant}.json") for variant in VARIANTS}
    task = load_tasks({"pope": {"type": "pope", "image_root": ".", "files": files}})["pope"]
    assert isinstance(task, Pope)
    samples = task.samples()
    assert Counter(variant for sample in samples for variant in sample.subsets) == dict.fromkeys(
        VARIANTS, 3000
    ) | {"random": sum("random" in sample.subsets for sample in samples)}
    assert len(samples) < 6500 and len({sample.cluster for sample in samples}) == 500
    assert sum(sample.subsets == VARIANTS for sample in samples) >= 1500


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"type": "pope", "image_root": ".", "instances": "a", "min_objcts": 1},
            "tasks.pope.min_objcts.*min_objects",
        ),
        ({"type": "poep", "image_root": "."}, "tasks.pope.type.*'pope'"),
        ({"type": "pope", "image_root": "."}, "tasks.pope: set exactly one"),
        ({"type": "pope", "instances": "a"}, "missing key 'tasks.pope.image_root'"),
        ({"type": "pope", "image_root": ".", "instances": "a", "seed": -1}, "tasks.pope.seed = -1"),
        ("pope", "tasks.pope = 'pope'"),
    ],
)
def test_wrong_sections_name_their_place(section: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_tasks({"pope": section})


@pytest.mark.parametrize(
    "line", ['{"image": "a.jpg", "text": "?", "label": "si"}', '{"image": "a.jpg"}', "{", "[1]"]
)
def test_malformed_published_lines_are_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"image": "a.jpg", "text": "?", "label": "no"}\n' + line)
    task = load_tasks({"pope": {"type": "pope", "image_root": ".", "files": {"random": str(path)}}})["pope"]
    with pytest.raises(AlignError, match=r"bad.jsonl:2"):
        task.samples()
