"""The sample stage on a real server: distinct answers, kills, a full disk."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from align.config.recipe import load_recipe, validate
from align.errors import AlignError, RecipeError
from align.rows.schema import Candidate, Message, PromptRow, read_rows, write_rows
from align.run.folder import RunFolder
from align.serving.client import Choice, Reply
from data_tools.sample import Part, Recipe, distinct, in_part, read_prompts, run
from tests.vllm_fixtures import ServedBase, kill_midway


def prompt(number: int, image: str = "") -> PromptRow:
    said = [Message(role="user", content="Please describe this image in detail.")]
    meta = {"split": "train", "image_id": number}
    return PromptRow(id=f"train-{number}", images=[image] if image else [], prompt=said, meta=meta)


def write_recipe(tmp_path: Path, world: Path, served: ServedBase, **changes: Any) -> Path:
    """A recipe file that asks the shared server about the tiny world's train images, slowly."""
    names = sorted(path.name for path in (world / "images" / "train").iterdir())
    rows = [prompt(number, f"train/{name}") for number, name in enumerate(names)]
    write_rows(tmp_path / "prompts.parquet", rows)
    tree = {
        "run_dir": str(tmp_path / "run"),
        "model": str(served.checkpoint),
        "prompts": str(tmp_path / "prompts.parquet"),
        "image_root": str(world / "images"),
        "n": 8,
        "sampling": {"temperature": 1.0, "max_tokens": 32},
        "serve": {"endpoint": served.url},
        "concurrency": 2,
    }
    path = tmp_path / "sample.yaml"
    OmegaConf.save(OmegaConf.create(tree | changes), path)
    return path


def go(path: Path, *overrides: str) -> RunFolder:
    return run(load_recipe(Recipe, path, overrides))


@pytest.fixture(scope="module")
def undisturbed(
    served_base: ServedBase, tiny_world: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The manifest of a run that nothing happened to."""
    return go(write_recipe(tmp_path_factory.mktemp("sample"), tiny_world, served_base)).manifest()


def test_repeats_are_counted_and_an_ended_answer_wins_over_a_cut_one() -> None:
    texts = [(" a dog", "length", 9), ("a cat", "stop", 3), ("a dog ", "stop", 2), ("a dog", "length", 9)]
    choices = [Choice(text=text, finish_reason=why, num_tokens=n) for text, why, n in texts]
    found = distinct(prompt(7), Reply(choices=choices))
    assert [(row.id, row.text, row.finish_reason, row.num_tokens, row.meta["count"]) for row in found] == [
        ("train-7#0", "a dog", "stop", 2, 3),
        ("train-7#1", "a cat", "stop", 3, 1),
    ]


def test_thoughts_stand_beside_the_candidate_and_make_no_other_one() -> None:
    said = ["<think>hm</think>a dog", "a dog", "<think>a dog", "<think>h</think>a dog", ""]
    choices = [Choice(text=text, finish_reason="stop", num_tokens=10) for text in said]
    found = distinct(prompt(7), Reply(choices=choices))
    assert [
        (row.text, row.reasoning, row.unclosed, row.finish_reason, row.meta["count"]) for row in found
    ] == [
        ("a dog", "hm", False, "stop", 3),
        ("", "a dog", True, "length", 1),
        ("", "", False, "stop", 1),
    ]


def test_each_round_asks_about_other_pictures_and_all_about_dev_ones() -> None:
    rows = [prompt(n, f"train/{n // 2}.png") for n in range(60)]  # two prompts a picture
    rows += [row.model_copy(update={"id": f"dev-{row.id}", "meta": {"split": "dev"}}) for row in rows[:4]]
    parts = [in_part(rows, Part(number=n, of=3)) for n in (1, 2, 3)]
    train = [{row.images[0] for row in part if row.meta["split"] == "train"} for part in parts]
    assert set.union(*train) == {f"train/{n}.png" for n in range(30)}
    assert sum(map(len, train)) == 30 and all(train)
    assert [sum(row.meta["split"] == "dev" for row in part) for part in parts] == [4, 4, 4]
    assert sum(map(len, parts)) == 60 + 3 * 4
    assert in_part(rows, Part(number=4, of=3)) == parts[0] and in_part(rows, None) == rows
    with pytest.raises(AlignError, match="no train prompt in part 2 of 3"):
        in_part(parts[0], Part(number=2, of=3))


def test_greedy_sampling_is_refused_and_seeds_are_the_stage_s_own(tmp_path: Path) -> None:
    values = {"run_dir": tmp_path, "model": "a/b", "prompts": tmp_path, "image_root": tmp_path}
    assert validate(Recipe, values | {"sampling": {"max_tokens": 9}}, "x").sampling.temperature == 0.7
    with pytest.raises(RecipeError, match=r"sampling\.temperature = 0"):
        validate(Recipe, values | {"sampling": {"temperature": 0}}, "x")
    with pytest.raises(RecipeError, match=r"unknown key 'sampling\.seed'"):
        validate(Recipe, values | {"sampling": {"seed": 1}}, "x")


@pytest.mark.vllm
def test_candidates_of_a_real_model(undisturbed: dict[str, Any]) -> None:
    metrics = undisturbed["metrics"]
    assert (metrics["prompts"], metrics["answers"], metrics["failed"]) == (24, 192, 0)
    assert 24 < metrics["candidates"] <= 192
    assert 1 <= metrics["mean_tokens"] <= 32


@pytest.mark.vllm
def test_killed_and_resumed_equals_undisturbed(
    undisturbed: dict[str, Any], served_base: ServedBase, tiny_world: Path, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path, tiny_world, served_base)
    partial = tmp_path / "run" / "sample.partial"
    for lines in (3, 11):
        kill_midway(["sample", str(path)], partial / "scratch" / "answers.jsonl", lines)
        assert not (tmp_path / "run" / "sample").exists()
    store = partial / "scratch" / "answers.jsonl"
    with store.open("ab") as torn:
        torn.write(b'{"key": "torn by a power c')
    assert 11 <= store.read_bytes().count(b"\n") < 24
    folder = go(path)
    assert folder.manifest()["output_digest"] == undisturbed["output_digest"]
    rows = list(read_rows(Candidate, folder.final / "candidates.jsonl"))
    assert [row.id for row in rows] == sorted(row.id for row in rows)


@pytest.mark.vllm
def test_a_missing_image_stops_before_anything_is_written(
    served_base: ServedBase, tiny_world: Path, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path, tiny_world, served_base)
    write_rows(tmp_path / "prompts.parquet", [prompt(1, "train/gone.png")])
    with pytest.raises(AlignError, match=r"missing image: train/gone\.png"):
        go(path)
    write_rows(tmp_path / "prompts.parquet", [prompt(1), prompt(1)])
    with pytest.raises(AlignError, match="duplicate prompt id 'train-1'"):
        go(path)
    assert not (tmp_path / "run" / "sample").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB of its own; needs the right to mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a small disk here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.vllm
def test_a_full_disk_is_one_message_and_freeing_space_resumes(
    undisturbed: dict[str, Any],
    served_base: ServedBase,
    tiny_world: Path,
    tmp_path: Path,
    small_disk: Path,
) -> None:
    path = write_recipe(tmp_path, tiny_world, served_base, run_dir=str(small_disk))
    filler = small_disk / "filler"
    filler.write_bytes(bytes(1024 * 1024 - 20 * 1024))
    with pytest.raises(AlignError, match="the disk is full") as caught:
        go(path)
    assert "free some space" in caught.value.fix
    assert not (small_disk / "sample").exists()
    filler.unlink()
    assert go(path).manifest()["output_digest"] == undisturbed["output_digest"]
    assert json.loads((small_disk / "sample" / "manifest.json").read_text())["status"] == "complete"


def test_a_bad_prompt_is_counted_and_the_others_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = '{"id": "a", "prompt": [{"role": "user", "content": "Q"}]}\n'
    (tmp_path / "prompts.jsonl").write_text(good + good.replace("Q", "cut \\ud83d"))
    assert [row.id for row in read_prompts(tmp_path / "prompts.jsonl")] == ["a"]
    printed = capsys.readouterr().out
    assert "prompts: kept 1 of 2" in printed
    assert "half a character" in printed and "prompts.jsonl:2" in printed
