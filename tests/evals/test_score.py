"""The score stage on answers to real questions: lines of metrics.json, health, and its refusals."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from align.config.recipe import validate
from align.digest import digest_path
from align.errors import AlignError, RecipeError
from align.rows.schema import Prediction, Score, read_rows, write_rows
from evals.report.load import load_results
from evals.score import Recipe, run, score_predictions
from evals.tasks.registry import load_tasks
from evals.tasks.task import Task

NAMES = ["cat", "dog", "cup", "bed", "bus", "kite"]
FIELDS = """
task metric split higher_is_better values ci steps delta ci_low ci_high p p_holm mde n clusters mode
"""


@pytest.fixture
def tasks_section(tmp_path: Path) -> dict[str, Any]:
    """Sixty images with three objects each, their captions, and a question about each."""
    rng = random.Random(0)
    objects = {i: rng.sample(range(1, 7), 3) for i in range(1, 61)}
    files: dict[str, Any] = {
        "instances": {
            "images": [{"id": i, "file_name": f"{i}.png"} for i in objects],
            "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)],
            "annotations": [{"image_id": i, "category_id": c} for i, found in objects.items() for c in found],
        },
        "questions": {
            "questions": [{"question_id": i, "image_id": i, "question": "Where?"} for i in objects]
        },
        "answers": {
            "annotations": [
                {
                    "question_id": i,
                    "image_id": i,
                    "question_type": "where",
                    "answers": [{"answer": "yes"}] * 10,
                }
                for i in objects
            ]
        },
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    shared = {"image_root": str(tmp_path)}
    instances = str(tmp_path / "instances.json")
    return {
        "pope": {"type": "pope", "instances": instances, **shared},
        "chair": {"type": "chair", "instances": instances, **shared},
        "vqa": {
            "type": "vqa",
            "questions": str(tmp_path / "questions.json"),
            "annotations": str(tmp_path / "answers.json"),
            **shared,
        },
    }


def answer(task: Task, skill: float, seed: int) -> list[Prediction]:
    """Answers that are right with probability `skill`."""
    rng = random.Random(seed)
    found = []
    for sample in task.samples():
        right = rng.random() < skill
        if task.name == "pope":
            text = "Yes" if (sample.reference["label"] == "yes") == right else "No"
        elif task.name == "vqa":
            text = "yes" if right else "no"
        else:
            names = sample.reference["strict"] if right else NAMES[:4]
            text = "A " + " and a ".join(names) + "."
        found.append(
            Prediction(key="k", task=task.name, sample_id=sample.id, text=text, finish_reason="stop")
        )
    return found


def write_folder(folder: Path, section: dict[str, Any], skill: float, seed: int) -> Path:
    folder.mkdir()
    OmegaConf.save(OmegaConf.create({"name": folder.name, "tasks": section}), folder / "recipe.yaml")
    rows = [row for task in load_tasks(section).values() for row in answer(task, skill, seed)]
    write_rows(folder / "predictions.jsonl", rows)
    return folder


@pytest.fixture
def folders(tmp_path: Path, tasks_section: dict[str, Any]) -> dict[str, Path]:
    skills = {"base": 0.4, "sft": 0.6, "dpo": 0.9}
    return {
        name: write_folder(tmp_path / name, tasks_section, skill, seed)
        for seed, (name, skill) in enumerate(skills.items())
    }


def score(tmp_path: Path, folders: dict[str, Path], **options: Any) -> Path:
    values = {
        "run_dir": str(tmp_path / "run"),
        "checkpoints": {k: str(v) for k, v in folders.items()},
        "resamples": 500,
    }
    return run(validate(Recipe, values | options, where="test")).final


def lines(folder: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    found = json.loads((folder / "metrics.json").read_text())
    table = {(row["task"], row["split"], row["metric"]): row for row in found}
    assert len(table) == len(found)
    return table


def test_three_checkpoints(tmp_path: Path, folders: dict[str, Path]) -> None:
    table = lines(score(tmp_path, folders))
    for row in table.values():
        assert set(FIELDS.split()) <= row.keys()
        base, sft, dpo = (row["values"][name] for name in folders)
        assert row["delta"] == pytest.approx(dpo - sft, abs=2e-6)
        assert row["steps"]["base"]["sft"]["delta"] == pytest.approx(sft - base, abs=2e-6)
        assert row["steps"]["base"]["dpo"]["delta"] == pytest.approx(dpo - base, abs=2e-6)
        assert row["ci_low"] <= row["delta"] <= row["ci_high"] and 0 < row["p"] <= 1
        assert (row["p_holm"] is not None) == row["primary"]
        assert row["p_holm"] is None or row["p_holm"] >= row["p"]
        assert (row["p_not_worse"] is None) == (row["higher_is_better"] is None)
    chair = table["chair", "test", "chair_s"]
    assert chair["delta"] < 0 and chair["ci_high"] < 0 and chair["p"] < 0.05 and not chair["higher_is_better"]
    assert chair["p_method"] == "mcnemar_exact" and chair["p_not_worse"] < 0.025
    assert (chair["n"], chair["clusters"]) == (60, 60)
    assert table["pope", "adversarial", "f1"]["p_method"] == "cluster_sign_flip"
    assert table["pope", "adversarial", "f1"]["n"] == 360
    assert table["vqa", "test", "accuracy"]["primary"]


def test_rows_carry_what_a_reader_needs(tmp_path: Path, folders: dict[str, Path]) -> None:
    folder = score(tmp_path, folders)
    for checkpoint in folders:
        for task in ("pope", "chair", "vqa"):
            rows = list(read_rows(Score, folder / "rows" / checkpoint / f"{task}.jsonl"))
            assert rows and all(
                {"question", "text", "image", "label", "finish_reason"} <= row.meta.keys() for row in rows
            )
    cards = json.loads((folder / "tasks.json").read_text())
    assert set(cards) == {"pope", "chair", "vqa"}
    assert cards["pope"]["facts"] == {"label": "POPE", "kind": "pope", "yes_ratio": "yes_ratio"}


def test_failed_requests_are_counted_not_scored(tmp_path: Path, folders: dict[str, Path]) -> None:
    path = folders["dpo"] / "predictions.jsonl"
    rows = list(read_rows(Prediction, path))
    index = next(i for i, row in enumerate(rows) if row.task == "vqa")
    rows[index] = rows[index].model_copy(update={"text": None, "error": "timeout", "finish_reason": ""})
    rows[index + 1] = rows[index + 1].model_copy(update={"text": " ", "finish_reason": "length"})
    write_rows(path, rows)
    folder = score(tmp_path, folders)
    health = json.loads((folder / "health.json").read_text())
    counts = {key: health["dpo"]["vqa"][key] for key in ("n", "failed", "empty", "truncated", "unparsed")}
    assert counts == {"n": 60, "failed": 1, "empty": 1, "truncated": 1, "unparsed": 1}
    assert health["sft"]["vqa"]["failed"] == 0 and health["sft"]["vqa"]["mean_words"] == 1.0
    assert lines(folder)["vqa", "test", "accuracy"]["n"] == 59


def test_one_and_two_checkpoints_of_other_names(tmp_path: Path, folders: dict[str, Path]) -> None:
    one = lines(score(tmp_path, {"mine": folders["sft"]}, name="one"))["chair", "test", "recall"]
    assert one["delta"] is None and one["p"] is None and 0 < one["values"]["mine"] <= 100
    two = lines(score(tmp_path, {"old": folders["base"], "new": folders["dpo"]}, name="two"))[
        "chair", "test", "recall"
    ]
    assert two["delta"] == pytest.approx(two["values"]["new"] - two["values"]["old"], abs=2e-6)
    assert two["steps"] == {}


def test_equal_inputs_give_equal_bytes(tmp_path: Path, folders: dict[str, Path]) -> None:
    assert digest_path(score(tmp_path, folders, name="a")) == digest_path(score(tmp_path, folders, name="b"))


def test_different_tasks_are_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    recipe = OmegaConf.load(folders["dpo"] / "recipe.yaml")
    recipe.tasks.pope.seed = 3
    OmegaConf.save(recipe, folders["dpo"] / "recipe.yaml")
    with pytest.raises(AlignError, match="'base' and 'dpo' answered different tasks: pope"):
        score(tmp_path, folders)


def test_missing_or_unknown_answers_are_refused(tasks_section: dict[str, Any]) -> None:
    task = load_tasks(tasks_section)["vqa"]
    answers = answer(task, 1.0, 0)
    with pytest.raises(AlignError, match="59 predictions for 60 samples: 1 without an answer"):
        score_predictions(task, answers[1:])
    with pytest.raises(AlignError, match="1 repeated"):
        score_predictions(task, [*answers, answers[0]])
    with pytest.raises(AlignError, match="1 unknown"):
        score_predictions(task, [*answers, answers[0].model_copy(update={"sample_id": "x"})])


def test_refusals_before_any_work(tmp_path: Path, folders: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match=r"checkpoints\.dpo.*not a finished folder"):
        score(tmp_path, {**folders, "dpo": tmp_path / "nowhere"})
    with pytest.raises(RecipeError, match="'a/b' is no plain word"):
        score(tmp_path, {"a/b": folders["sft"]})
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_may_have_any_plain_name(tmp_path: Path, folders: dict[str, Path]) -> None:
    """Also that of a field of a line, and names whose steps would have been written alike."""
    names: list[str] = ["p", "n", "mode", "delta", "p_to_n"]
    named = dict(zip(names, [*folders.values()] * 2, strict=False))
    folder = score(tmp_path, named)
    for row in lines(folder).values():
        assert list(row["values"]) == list(named) and row["mode"] in ("official", "strict")
        assert row["steps"]["p"]["n"]["delta"] == pytest.approx(
            row["values"]["n"] - row["values"]["p"], abs=2e-6
        )
    found = load_results(folder)
    assert list(found.checkpoints) == list(named) and len(found.steps) == 7


def test_lines_of_another_shape_are_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    folder = score(tmp_path, folders)
    raw = json.loads((folder / "metrics.json").read_text())
    for change, said in (({"sft": 1.0}, "not a line of metrics: sft"), ({"values": None}, "values")):
        (folder / "metrics.json").write_text(json.dumps([{**raw[0], **change}]))
        with pytest.raises(AlignError, match=said) as caught:
            load_results(folder)
        assert "item 0" in caught.value.where and caught.value.fix == "run `align score` again"
    (folder / "metrics.json").write_text(json.dumps([{key: raw[0][key] for key in raw[0] if key != "n"}]))
    with pytest.raises(AlignError, match="metrics lack n"):
        load_results(folder)
