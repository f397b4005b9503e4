"""Measures of captions beside the benchmarks' own numbers: values in rows, lines with intervals, tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align.cli import main
from align.rows.schema import Prediction, Score
from evals.comparison.lines import compare_task
from evals.comparison.metric_line import MetricLine, dump_lines
from evals.comparison.runs_side_by_side import Recorded
from evals.protocol import CAPTION_AIMS
from evals.report.load import load_results
from evals.report.table import caption_sections, main_rows
from evals.score import Scored, compare_checkpoints, score_predictions, write_about, write_scores
from evals.tasks.registry import load_tasks
from evals.tasks.task import Task
from tests.repository import BENCHMARKS

# Captions and what is there: two dogs and a red car in the first picture, a cat in the second.
BEFORE = ["A dog and a red car on the left.", "A cat."]
AFTER = ["A dog, a dog, a dog and a blue car.", "A cat, a cat and a bird"]
TRUTH_MEASURES = {
    "distinct_invention", "object_recall", "object_f1", "instance_precision", "instance_recall",
    "instance_f1", "overcounted", "number_accuracy", "place_accuracy", "colour_accuracy",
    "relation_accuracy",
}  # fmt: skip
PRESENCE_MEASURES = {"distinct_invention", "object_recall", "object_f1"}
FORM_MEASURES = {"repeated_captions", "repeated_3grams", "distinct_2", "broken_captions", "words"}


def instances(folder: Path) -> Path:
    def item(image: int, category: int, x: int, colour: str | None = None) -> dict[str, Any]:
        more = {"attributes": {"color": colour}} if colour else {}
        return {"image_id": image, "category_id": category, "iscrowd": 0, "bbox": [x, 0, 10, 10], **more}

    path = folder / "instances_val2014.json"
    path.write_text(
        json.dumps(
            {
                "images": [
                    {"id": image, "file_name": f"{image}.jpg", "width": 90, "height": 90} for image in (1, 2)
                ],
                "annotations": [item(1, 18, 0), item(1, 18, 40), item(1, 3, 80, "red"), item(2, 17, 0)],
                "categories": [
                    {"id": 3, "name": "car"}, {"id": 17, "name": "cat"}, {"id": 18, "name": "dog"},
                    {"id": 16, "name": "bird"},
                ],
            }
        )
    )  # fmt: skip
    return path


def chair(folder: Path) -> Task:
    section = {"type": "chair", "image_root": str(folder), "instances": str(instances(folder))}
    return load_tasks({"chair": section})["chair"]


def predictions(task: Task, texts: list[str]) -> list[Prediction]:
    samples = task.samples()
    return [
        Prediction(key="k", task=task.name, sample_id=sample.id, text=text)
        for sample, text in zip(samples, texts, strict=True)
    ]


def scored(task: Task, texts: list[str]) -> Scored:
    return score_predictions(task, predictions(task, texts))


def lines(task: Task, **sides: list[Score]) -> dict[str, MetricLine]:
    return {line.metric: line for line in compare_task(task, sides, 200, [0])}


def test_chair_with_instances_has_every_measure(tmp_path: Path) -> None:
    task = chair(tmp_path)
    found = lines(task, sft=scored(task, BEFORE).scores, dpo=scored(task, AFTER).scores)
    assert {name for name, line in found.items() if line.measures == "truth"} == TRUTH_MEASURES
    form = {name for name, line in found.items() if line.measures == "form"}
    assert form == FORM_MEASURES - {"words"} and found["words"].measures == "invention"  # CHAIR's own
    assert not any(line.primary for line in found.values() if line.measures in CAPTION_AIMS)
    # before: dog 1 of 2, car 1, cat 1; after: dogs 3 for 2, car, cats 2 for 1, a bird for none
    expected = {
        "instance_precision": (100.0, 400 / 7), "instance_recall": (75.0, 100.0),
        "overcounted": (0.0, 200 / 3), "distinct_invention": (0.0, 25.0), "object_recall": (100.0, 100.0),
        "number_accuracy": (0.0, 0.0), "place_accuracy": (0.0, 0.0), "colour_accuracy": (100.0, 0.0),
        "repeated_captions": (0.0, 100.0), "broken_captions": (0.0, 50.0), "words": (5.5, 8.5),
    }  # fmt: skip
    shown = {name: (found[name].values["sft"], found[name].values["dpo"]) for name in expected}
    assert {name: pytest.approx(pair, abs=1e-4) for name, pair in expected.items()} == shown
    line = found["instance_precision"]
    assert line.delta == pytest.approx(400 / 7 - 100, abs=1e-4)
    assert line.is_clear and (line.ci_high or 0) < 0 and set(line.ci) == {"sft", "dpo"}
    # nobody says a relation; a number is said in the second side alone
    assert found["relation_accuracy"].undefined == ["sft", "dpo"]
    assert found["number_accuracy"].undefined == ["sft"]


def test_published_numbers_stay_first_and_as_they_were(tmp_path: Path) -> None:
    task = chair(tmp_path)
    found = lines(task, base=scored(task, AFTER).scores)
    assert list(found)[:3] == ["chair_s", "chair_i", "recall"]
    assert [found[name].values["base"] for name in list(found)[:3]] == pytest.approx(
        [50.0, 100 / 7, 100.0], abs=1e-4
    )
    assert [name for name, line in found.items() if line.primary] == ["chair_s", "chair_i"]


def test_published_intervals_do_not_depend_on_further_measures(tmp_path: Path) -> None:
    task = chair(tmp_path)
    sides = {"sft": scored(task, BEFORE).scores, "dpo": scored(task, AFTER).scores}
    own = [metric for metric in task.metrics if metric.measures not in CAPTION_AIMS]
    alone = compare_task(Recorded("chair", "invention", own), sides, 200, [0])
    assert alone == compare_task(task, sides, 200, [0])[: len(own)]


def test_rows_hold_the_values_and_the_reasons(tmp_path: Path) -> None:
    task = chair(tmp_path)
    first, second = scored(task, AFTER).scores
    assert (first.values["instances_named"], first.values["instances_right"]) == (4, 3)
    assert first.meta["repeated"] == ["dog"] and first.meta["broken"] == []
    assert {"kind": "number", "category": "dog", "value": "3", "right": False} in first.meta["claims"]
    assert {"kind": "colour", "category": "car", "value": "blue", "right": False} in first.meta["claims"]
    assert second.meta["broken"] == ["no end"]
    names = {name for metric in task.metrics for name in (*metric.numerator, *metric.denominator)}
    assert names <= first.values.keys()


def test_presence_alone_leaves_counts_out(tmp_path: Path) -> None:
    path = tmp_path / "objects.json"
    path.write_text(json.dumps({"1": ["dog", "car"], "2": ["cat"]}))
    section = {"type": "chair", "image_root": str(tmp_path), "objects": str(path)}
    task = load_tasks({"chair": section})["chair"]
    found = lines(task, base=scored(task, AFTER).scores)
    assert {name for name, line in found.items() if line.measures == "truth"} == PRESENCE_MEASURES
    assert found["distinct_invention"].values["base"] == pytest.approx(25.0)


def write_folder(folder: Path, task: Task, sides: dict[str, Scored]) -> Path:
    """A score folder, as the stage writes it."""
    by_task = {name: {task.name: side} for name, side in sides.items()}
    folder.mkdir()
    write_scores(folder, by_task)
    metrics = compare_checkpoints({task.name: task}, by_task, 200, 0)
    (folder / "metrics.json").write_text(json.dumps(dump_lines(metrics)))
    write_about(folder, {task.name: task}, by_task)
    (folder / "recipe.yaml").write_text("checkpoints: {}\n")
    return folder


def test_the_report_has_tables_of_their_own(tmp_path: Path) -> None:
    task = chair(tmp_path)
    sides = {"sft": scored(task, BEFORE), "dpo": scored(task, AFTER)}
    results = load_results(write_folder(tmp_path / "score", task, sides))
    truth, form = caption_sections(results)
    assert truth.title == "How much of what is said is true"
    assert form.title == "Repetition, grammar and length"
    rows = {row[1]: row for row in truth.rows + form.rows}
    assert rows["Instance precision ↑"][:4] == ["CHAIR", "Instance precision ↑", "100.0", "57.1"]
    assert rows["Instance precision ↑"][4].startswith("−42.9 [")
    assert rows["Captions that repeat an object ↓"][2:4] == ["0.0", "100.0"]
    assert "Relations said that are right ↑" not in rows  # nothing to measure
    assert rows["Numbers said that are right ↑"][2:5] == ["–", "0.0", "–"]  # before, nobody said one
    assert truth.header == ["task", "measure", "SFT", "DPO", "DPO − SFT [95%]", "what it is"]
    assert not {row.metric for row in main_rows(results)} & {"Instance precision", "Words per caption"}


def test_amber_measures_things_of_its_own(tmp_path: Path) -> None:
    files: dict[str, Any] = {
        "annotations.json": [
            {"id": 1, "type": "generative", "truth": ["dog", "road", "tree"], "hallu": ["cat"]},
            {"id": 1005, "type": "discriminative-relation", "truth": "yes"},
        ],
        "relation.json": {"dog": ["puppy"], "road": [], "tree": [], "cat": [], "car": []},
        "query_generative.json": [{"id": 1, "image": "1.jpg", "query": "Describe this image."}],
    }
    for name, value in files.items():
        (tmp_path / name).write_text(json.dumps(value))
    (tmp_path / "safe_words.txt").write_text("image\n")
    section = {
        "type": "amber", "image_root": str(tmp_path), "annotations": str(tmp_path / "annotations.json"),
        "relation": str(tmp_path / "relation.json"), "safe_words": str(tmp_path / "safe_words.txt"),
        "queries": [str(tmp_path / "query_generative.json")],
    }  # fmt: skip
    task = load_tasks({"amber": section})["amber"]
    text = "A dog, a dog and a cat, a cat on the road."
    found = lines(task, base=scored(task, [text]).scores)
    assert found["chair"].values["base"] == pytest.approx(40.0)  # published: mentions, repeats counting
    assert found["distinct_invention"].values["base"] == pytest.approx(100 / 3, abs=1e-4)  # dog, cat, road
    assert found["object_recall"].values["base"] == pytest.approx(200 / 3, abs=1e-4)
    assert found["repeated_captions"].values["base"] == 100.0 and found["words"].values["base"] == 12.0
    assert found["words"].split == "generative" and "instance_precision" not in found


def score(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    assert main(["score", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_captions_without_any_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "captions.jsonl"
    rows = [{"image_id": 7, "caption": "A dog, a dog."}, {"image_id": 9, "caption": "A boat on the sea"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["custom", "--predictions", path, "--data", path, "--option", "metric=captions"]
    found = score(capsys, *words)
    assert {name: found[name] for name in FORM_MEASURES} == {
        "repeated_captions": 50.0, "repeated_3grams": 0.0, "distinct_2": pytest.approx(600 / 7, abs=1e-4),
        "broken_captions": 50.0, "words": 4.5,
    }  # fmt: skip
    assert "distinct_invention" not in found and found["health"]["answered"] == 2


def test_own_objects_may_have_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, answers = tmp_path / "mine.jsonl", tmp_path / "answers.jsonl"
    data.write_text(
        json.dumps({"id": "a", "objects": {"puppy": 1, "dog": 1}})
        + "\n"
        + json.dumps({"id": "b", "objects": ["cat"]})
        + "\n"
    )
    answers.write_text('{"id": "a", "text": "Three dogs."}\n{"id": "b", "text": "Two cats."}\n')
    words = ["custom", "--predictions", answers, "--data", data, "--option", "metric=chair"]
    found = score(capsys, *words)
    assert found["instance_precision"] == pytest.approx(200 / 3, abs=1e-4)  # of b no number is known
    assert (found["chair_s"], found["object_recall"], found["overcounted"]) == (0.0, 100.0, 100.0)


@pytest.mark.parametrize("objects", [{"dog": 0}, {"dog": "two"}, "dog"])
def test_counts_are_numbers(objects: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "mine.jsonl"
    data.write_text(json.dumps({"id": "a", "objects": objects, "text": "A dog."}) + "\n")
    words = ["custom", "--predictions", data, "--data", data, "--option", "metric=chair"]
    assert main(["score", *map(str, words)]) == 1
    assert "objects" in capsys.readouterr().err


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="no published captions beside the repository")
def test_llavas_published_captions(capsys: pytest.CaptureFixture[str]) -> None:
    folder = BENCHMARKS / "chair"
    answers = folder / "llava-1.5-7b_greedy_captions.jsonl"
    found = score(capsys, "chair", "--predictions", answers, "--data", folder / "gt_objects_500.json")
    assert [round(found[name], 1) for name in ("chair_s", "chair_i", "recall")] == [45.0, 12.8, 79.8]
    assert 20 < found["distinct_invention"] < 26 and found["broken_captions"] == 0.0
    assert 5 < found["repeated_captions"] < 15
