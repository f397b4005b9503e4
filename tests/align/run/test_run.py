from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest

from align.config.model_ref import ModelRef
from align.config.recipe import StageRecipe, Strict
from align.errors import AlignError
from align.rows.tally import Tally
from align.run.folder import RunFolder, read_manifest
from align.run.stage import Done, open_quarantine, run_stage, write_dropped


class Inner(Strict):
    port: int = 0
    dtype: str = "float32"


class Recipe(StageRecipe):
    how_keys = frozenset({"speed", "server.port"})
    limit_keys = frozenset({"max_failed"})

    name: str = "stage"
    size: int = 1
    speed: int = 1
    max_failed: float = 0.1
    server: Inner = Inner()


def work(tmp_path: Path, text: str = "out", size: int = 1, fail: BaseException | None = None) -> RunFolder:
    """A stage that writes one file from one input; `fail` is raised half-way."""

    def write(folder: RunFolder) -> Done:
        with (folder.scratch / "store").open("a") as store:
            store.write("x")
        if fail:
            raise fail
        (folder.work / "out.txt").write_text(text)
        (folder.logs / "time.log").write_text("noise")
        return Done({"store": (folder.scratch / "store").read_text()}, "align next")

    return run_stage(Recipe(run_dir=tmp_path / "run", size=size), {"data": tmp_path / "in.txt"}, write)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.txt"
    path.write_text("data")
    return path


def test_complete_stage_is_skipped_until_recipe_input_or_output_changes(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work(tmp_path, "first")
    out = tmp_path / "run" / "stage" / "out.txt"
    work(tmp_path, "second")
    assert out.read_text() == "first" and "nothing to do" in capsys.readouterr().out
    work(tmp_path, "third", size=2)
    assert out.read_text() == "third"
    source.write_text("other data")
    work(tmp_path, "fourth", size=2)
    assert out.read_text() == "fourth"
    out.unlink()
    work(tmp_path, "fifth", size=2)
    assert out.read_text() == "fifth"


def test_keys_that_say_how_discard_nothing(tmp_path: Path, source: Path) -> None:
    def opened(**changes: object) -> RunFolder:
        recipe = Recipe.model_validate({"run_dir": tmp_path / "run", **changes})
        return RunFolder.open(recipe, {"data": source})

    faster = {"speed": 9, "server": {"port": 8000}}
    with pytest.raises(RuntimeError):
        work(tmp_path, fail=RuntimeError("stopped"))
    assert opened(**faster).is_resumed and opened(max_failed=0.5).is_resumed
    assert not opened(server={"dtype": "bfloat16"}).is_resumed and not opened(size=2).is_resumed
    work(tmp_path)
    # What was accepted under one limit is looked at again under another.
    assert opened(**faster).is_complete and not opened(max_failed=0.0).is_complete


def test_a_folder_without_partial_is_whole(tmp_path: Path, source: Path) -> None:
    with pytest.raises(RuntimeError):
        work(tmp_path, fail=RuntimeError("half-way"))
    assert not (tmp_path / "run" / "stage").exists()
    record = json.loads((tmp_path / "run" / "stage.partial" / "manifest.json").read_text())
    assert record["status"] == "failed" and record["error"] == "RuntimeError: half-way"
    with pytest.raises(AlignError, match="not a finished stage"):
        read_manifest(tmp_path / "run" / "stage")


def test_partial_of_the_same_stage_resumes_and_of_another_is_discarded(tmp_path: Path, source: Path) -> None:
    with pytest.raises(RuntimeError):
        work(tmp_path, fail=RuntimeError())
    assert work(tmp_path).manifest()["metrics"]["store"] == "xx"
    with pytest.raises(RuntimeError):
        work(tmp_path, size=2, fail=RuntimeError())
    assert work(tmp_path, size=3).manifest()["metrics"]["store"] == "x"


def test_digest_ignores_logs_scratch_and_where_it_ran(tmp_path: Path, source: Path) -> None:
    first = work(tmp_path).manifest()["output_digest"]
    assert list(read_manifest(tmp_path / "run" / "stage")["outputs"]) == ["out.txt"]
    assert not (tmp_path / "run" / "stage" / "scratch").exists()
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(RuntimeError):
        work(tmp_path, fail=RuntimeError())
    assert work(tmp_path).manifest()["output_digest"] == first
    assert work(tmp_path, "other", size=9).manifest()["output_digest"] != first


def test_killed_between_manifest_and_rename_is_published_not_redone(tmp_path: Path, source: Path) -> None:
    final = tmp_path / "run" / "stage"
    work(tmp_path, "first")
    final.rename(final.with_name("stage.partial"))
    assert work(tmp_path, "second").final == final
    assert (final / "out.txt").read_text() == "first"


def test_full_disk_is_one_message_and_leaves_nothing_whole(tmp_path: Path, source: Path) -> None:
    with pytest.raises(AlignError, match="the disk is full"):
        work(tmp_path, fail=OSError(errno.ENOSPC, "No space left on device"))
    assert not (tmp_path / "run" / "stage").exists()


def test_two_processes_cannot_share_a_stage(tmp_path: Path, source: Path) -> None:
    recipe = Recipe(run_dir=tmp_path / "run")
    with RunFolder.open(recipe, {"data": source}), pytest.raises(AlignError, match="another process"):
        RunFolder.open(recipe, {"data": source}).__enter__()


def test_missing_input_is_told_and_a_hub_id_is_not_a_path(tmp_path: Path) -> None:
    with pytest.raises(AlignError, match="missing input data"):
        RunFolder.open(Recipe(run_dir=tmp_path), {"data": tmp_path / "none.parquet"})
    RunFolder.open(Recipe(run_dir=tmp_path), {"model": ModelRef(path="Qwen/Qwen2.5-VL-7B-Instruct")})


def test_what_is_left_out_has_one_shape(tmp_path: Path) -> None:
    def leave_out(folder: RunFolder) -> Done:
        tally = Tally("rows")
        tally.keep(2)
        with open_quarantine(folder, "rows") as bad:
            bad.add("rows.jsonl:3", "image", "missing image: a.png", row_id="x")
        tally.drop("image", "x")
        write_dropped(folder.work, [tally, Tally("pairs")])
        return Done({})

    folder = run_stage(Recipe(run_dir=tmp_path), {}, leave_out)
    line = {"where": "rows.jsonl:3", "id": "x", "reason": "image", "detail": "missing image: a.png"}
    assert json.loads((folder.final / "quarantine.jsonl").read_text()) == line
    dropped = {"image": {"count": 1, "examples": ["x"]}}
    expected = {"rows": {"kept": 2, "dropped": dropped}, "pairs": {"kept": 0, "dropped": {}}}
    assert json.loads((folder.final / "dropped.json").read_text()) == expected
    assert folder.manifest()["seeds"] == {"seed": 0} and folder.manifest()["next"] == ""


def test_a_second_process_quarantines_nothing_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with open_quarantine(RunFolder(Recipe(run_dir=tmp_path), {}), "rows") as bad:
        bad.add("rows.jsonl:3", "image")
    assert bad.tally.dropped == {"image": 1} and not list(tmp_path.iterdir())
