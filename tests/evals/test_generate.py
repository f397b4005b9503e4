"""The generate stage on a real server: shared requests, kills, predictions that are typed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from omegaconf import OmegaConf

from align.config.recipe import load_recipe
from align.errors import AlignError, RecipeError
from align.rows.schema import Message, Prediction, read_rows
from align.run.folder import RunFolder
from align.serving.client import Choice, Decoding, Failure, Reply
from evals.generate import Asked, Recipe, build_requests, predict, run, task_health
from evals.protocol import Sample
from tests.vllm_fixtures import ServedBase, kill_midway


def write_recipe(tmp_path: Path, world: Path, served: ServedBase) -> Path:
    notes = world / "annotations"
    chair = {
        "type": "chair",
        "image_root": str(world / "images" / "test"),
        "instances": str(notes / "instances_test.json"),
        "captions": str(notes / "captions_test.json"),
        "num_images": 8,
        "max_tokens": 32,
    }
    vqa = {
        "type": "vqa",
        "image_root": str(world / "images" / "test"),
        "questions": str(notes / "questions_test.json"),
        "annotations": str(notes / "vqa_test.json"),
        "max_tokens": 4,
        "file_name": "{image_id:012d}.png",
    }
    tree = {
        "run_dir": str(tmp_path / "run"),
        "model": str(served.checkpoint),
        "tasks": {"chair": chair, "vqa": vqa, "vqa_again": vqa},
        "serve": {"endpoint": served.url},
        "concurrency": 2,
    }
    path = tmp_path / "eval.yaml"
    OmegaConf.save(OmegaConf.create(tree), path)
    return path


def go(path: Path, *overrides: str) -> RunFolder:
    return run(load_recipe(Recipe, path, overrides))


@pytest.fixture(scope="module")
def undisturbed(
    served_base: ServedBase, tiny_world: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunFolder:
    """A run that nothing happened to."""
    return go(write_recipe(tmp_path_factory.mktemp("generate"), tiny_world, served_base))


def sample(root: Path, number: str, text: str, image: str, max_tokens: int = 8) -> Sample:
    said = [Message(role="user", content=text)]
    return Sample(number, [image], root, said, max_tokens, cluster=image, reference={})


def test_equal_questions_are_one_request_and_images_stand_together(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"first")
    (tmp_path / "b.png").write_bytes(b"second")
    (tmp_path / "copy.png").write_bytes(b"first")
    recipe = Recipe.model_construct(sampling=Decoding(), seed=5)
    samples = [
        ("pope", sample(tmp_path, "1", "Is it?", "a.png")),
        ("pope", sample(tmp_path, "2", "Is it?", "b.png")),
        ("vqa", sample(tmp_path, "3", "Is it?", "copy.png")),  # same bytes, another name
        ("vqa", sample(tmp_path, "4", "Is it?", "a.png", max_tokens=9)),
        ("vqa", sample(tmp_path, "5", "What?", "a.png")),
    ]
    asked, requests = build_requests(recipe, "d", samples)
    keys = [item.key for item in asked]
    assert keys[0] == keys[2] and len(set(keys)) == len(requests) == 4
    images = [request.images[0].read_bytes() for request in requests.values()]  # type: ignore[union-attr]
    assert sorted(images) in (images, images[::-1])
    assert {(request.sampling.n, request.sampling.seed) for request in requests.values()} == {(1, 0)}


def test_a_failed_request_is_never_text(tmp_path: Path) -> None:
    asked = [Asked("t", sample(tmp_path, name, "?", "a.png"), f"key {name}") for name in "abc"]
    replies = [
        Failure(reason="HTTP 400: too long"),
        Reply(choices=[Choice(text=" ", finish_reason="stop", num_tokens=1)]),
        Reply(choices=[Choice(text="a dog and", finish_reason="length", num_tokens=3)]),
    ]
    rows = [predict(item, reply) for item, reply in zip(asked, replies, strict=True)]
    assert (rows[0].text, rows[0].error) == (None, "HTTP 400: too long")
    health = task_health("t", rows)
    assert health == {"samples": 3, "failed": 1, "empty": 1, "truncated": 1, "mean_tokens": 2.0}
    thought = Reply(choices=[Choice(text="<think>hm</think>ok", finish_reason="stop", num_tokens=8)])
    cut = Reply(choices=[Choice(text="<think>hm", finish_reason="length", num_tokens=8)])
    rows = [predict(item, reply) for item, reply in zip(asked, (thought, cut, replies[1]), strict=True)]
    assert (rows[0].text, rows[0].reasoning, rows[0].num_tokens) == ("ok", "hm", 4)
    health = task_health("t", rows)
    assert (health["thoughts"], health["unclosed"], health["truncated"]) == (2, 1, 1)


def test_a_wrong_task_stops_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "eval.yaml"
    path.write_text(f"run_dir: {tmp_path}\nmodel: a/b\ntasks: {{pope: {{type: popo}}}}\n")
    with pytest.raises(RecipeError, match="unknown task type"):
        go(path)


@pytest.mark.vllm
def test_predictions_of_a_real_model(undisturbed: RunFolder) -> None:
    rows = list(read_rows(Prediction, undisturbed.final / "predictions.jsonl"))
    assert [(row.task, row.sample_id) for row in rows] == sorted((row.task, row.sample_id) for row in rows)
    by_task = {name: [row for row in rows if row.task == name] for name in ("chair", "vqa", "vqa_again")}
    assert len(by_task["chair"]) == 8 and len(by_task["vqa"]) == len(by_task["vqa_again"]) > 20
    assert [row.key for row in by_task["vqa"]] == [row.key for row in by_task["vqa_again"]]
    metrics = undisturbed.manifest()["metrics"]
    assert metrics["requests"] == len({row.key for row in rows}) < metrics["samples"] == len(rows)
    assert all(row.error is None and row.text and row.num_tokens <= 32 for row in rows)


@pytest.mark.vllm
def test_killed_and_resumed_equals_undisturbed(
    undisturbed: RunFolder, served_base: ServedBase, tiny_world: Path, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path, tiny_world, served_base)
    store = tmp_path / "run" / "generate.partial" / "scratch" / "answers.jsonl"
    kill_midway(["generate", str(path)], store, 5)
    assert not (tmp_path / "run" / "generate").exists()
    answered = {json.loads(line)["key"] for line in store.read_text().splitlines()}
    assert 5 <= len(answered) < undisturbed.manifest()["metrics"]["requests"]
    assert go(path).manifest()["output_digest"] == undisturbed.manifest()["output_digest"]


@pytest.mark.vllm
@pytest.mark.slow
def test_a_vllm_server_killed_with_9_costs_only_what_was_under_way(
    undisturbed: RunFolder, served_base: ServedBase, tiny_world: Path, tmp_path: Path
) -> None:
    """The stage's own server is killed midway; the next run goes on where it was, on another server."""
    path = write_recipe(tmp_path, tiny_world, served_base)
    partial = tmp_path / "run" / "generate.partial"
    store = partial / "scratch" / "answers.jsonl"
    same = ["serve.dtype=float32", "serve.max_model_len=512"]
    command = [sys.executable, "-m", "align.cli", "generate", str(path), "serve.endpoint=null", *same]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while client.poll() is None and not (store.is_file() and store.read_bytes().count(b"\n") >= 5):
        time.sleep(0.02)
    for process in psutil.Process(client.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    said, _ = client.communicate(timeout=300)
    assert client.returncode == 1 and "the server stopped answering" in said, said[-2000:]
    had = store.read_bytes()
    keys = [json.loads(line)["key"] for line in had.splitlines()]
    assert 5 <= len(keys) == len(set(keys)) < undisturbed.manifest()["metrics"]["requests"]
    resumed = subprocess.run([*command[:-3], *same], capture_output=True, text=True, timeout=900, check=False)
    assert resumed.returncode == 0, resumed.stdout[-2000:] + resumed.stderr[-2000:]
    assert (
        f"  {len(keys)} of {undisturbed.manifest()['metrics']['requests']} were answered before"
        in resumed.stdout
    )
    final = tmp_path / "run" / "generate"
    assert (
        json.loads((final / "manifest.json").read_text())["output_digest"]
        == (undisturbed.manifest()["output_digest"])
    )


@pytest.mark.vllm
@pytest.mark.slow
def test_the_offline_engine_says_what_the_server_says(
    undisturbed: RunFolder, served_base: ServedBase, tiny_world: Path, tmp_path: Path
) -> None:
    """The same predictions to the byte, keys included: an answer of one engine is the other's as well."""
    path = write_recipe(tmp_path, tiny_world, served_base)
    same = ["serve.endpoint=null", "serve.dtype=float32", "serve.max_model_len=512", "serve.max_num_seqs=32"]
    command = [sys.executable, "-m", "align.cli", "generate", str(path), "engine=offline", *same]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    offline, server = (
        (folder / "predictions.jsonl").read_bytes()
        for folder in (tmp_path / "run" / "generate", undisturbed.final)
    )
    assert offline == server


@pytest.mark.vllm
def test_too_many_failures_stop_the_stage(served_base: ServedBase, tiny_world: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, tiny_world, served_base)
    with pytest.raises(AlignError, match="got no answer, such as"):
        go(path, "tasks.chair.max_tokens=100000")
    assert not (tmp_path / "run" / "generate").exists()
