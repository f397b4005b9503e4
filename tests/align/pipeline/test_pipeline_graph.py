"""What stages read of each other, which run, and what a dry run says, on real stages that take no model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from align.cli import main
from align.errors import AlignError, RecipeError
from align.pipeline import Link, Selection, describe, load_pipeline, run_pipeline
from align.pipeline.graph import stage_at
from align.pipeline.reading import check_reads, without_unrun
from tests.align.pipeline.loop_pipeline import write_loop
from tests.repository import REPO

QUICKSTART = REPO / "recipes" / "quickstart" / "pipeline.yaml"


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    return write_loop(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline that has run once; tests must leave its files as they were."""
    path = write_loop(tmp_path_factory.mktemp("whole") / "x")
    run_pipeline(load_pipeline(path))
    return path


def states(path: Path, *overrides: str, **selection: str) -> dict[str, list[str]]:
    """Stage -> its state and the reasons below it, as `--dry-run` prints them."""
    found: dict[str, list[str]] = {}
    for line in describe(load_pipeline(path, overrides), Selection(**selection)).splitlines()[1:]:
        if line.startswith("      "):
            found[list(found)[-1]].append(line.strip())
        else:
            name, _, state = line.partition(" /")[0].split(maxsplit=2)
            found[name] = [state.strip()]
    return found


def test_a_path_belongs_to_the_folder_of_the_run_that_it_lies_in() -> None:
    run = Path("runs/x")
    assert stage_at("runs/x/pairs/pairs.parquet", run) == ("pairs", "pairs.parquet")
    assert stage_at(Path("runs/x/pairs"), run) == ("pairs", ".")
    assert stage_at("runs/x", run) is None and stage_at("runs/xy/pairs", run) is None
    assert stage_at("runs/x/../y", run) is None and stage_at("a text with words", run) is None


def test_stages_read_what_their_recipes_name(loop: Path) -> None:
    reads = {step.name: step.reads for step in load_pipeline(loop)}
    assert reads["world"] == reads["judge"] == reads["clean"] == []
    assert reads["pairs"] == [Link("verdicts", "judge"), Link("agreement", "judge")]
    assert reads["last"] == [Link("data", "clean"), Link("against[1]", "judge")]
    second = {step.name: step.reads for step in load_pipeline(loop, ["rounds=2"])}
    assert second["round2_clean"] == [Link("data", "clean")]


def test_every_recipe_of_the_quickstart_is_linked() -> None:
    reads = {step.name: {link.source for link in step.reads} for step in load_pipeline(QUICKSTART)}
    assert reads["sft_merged"] == {"sft", "scenes"} and reads["dpo"] >= {"sft_merged", "pairs", "scenes"}
    assert reads["score"] == {"generate_base", "generate_sft", "generate_dpo"}
    assert reads["report"] >= {"score", "judge", "pairs", "dpo"}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("pairs.verdicts={run}/last/v.jsonl", "pairs.verdicts = {run}/last/v.jsonl: reads what only 'last'"),
        ("last.data={run}/last/rows.jsonl", "last.data = {run}/last/rows.jsonl: reads what it writes itself"),
        ("last.data={run}/claen/r.jsonl", "no earlier stage writes it (did you mean 'clean'?)"),
    ],
)
def test_a_stage_that_reads_what_no_earlier_one_writes(loop: Path, override: str, said: str) -> None:
    run = f"{loop.parent}/run"
    with pytest.raises(RecipeError) as error:
        load_pipeline(loop, [override.format(run=run)])
    assert said.format(run=run) in str(error.value)


def test_what_is_there_need_not_be_a_stage_and_stores_need_not_be_there(loop: Path) -> None:
    run = loop.parent / "run"
    load_pipeline(loop, [f"clean.write_hashes={run}/hashes/all.parquet"])
    (run / "mine").mkdir(parents=True)
    load_pipeline(loop, [f"last.data={run}/mine/rows.jsonl"])


def test_which_stages_run() -> None:
    names = ["a", "b", "c", "d"]
    assert Selection().of(names) == names
    assert Selection(only=["c", "a"]).of(names) == ["a", "c"]
    assert Selection(since="b").of(names) == ["b", "c", "d"]
    assert Selection(until="b").of(names) == ["a", "b"]
    assert Selection(since="b", until="b").of(names) == ["b"]
    for wrong, said in (
        (Selection(since="d", until="a"), "--from d comes after --until a"),
        (Selection(only=["a"], since="a"), "--only goes without"),
        (Selection(until="bb"), "no stage 'bb' in this pipeline"),
    ):
        with pytest.raises(RecipeError, match=said):
            wrong.of(names)


def test_a_stretch_needs_what_it_reads(loop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AlignError) as error:
        run_pipeline(load_pipeline(loop), Selection(since="pairs"))
    assert "pairs.verdicts reads 'judge', which has not run" in str(error.value)
    assert "--from judge" in str(error.value) and not (loop.parent / "run").exists()
    assert main(["run", str(loop), "--until", "judge"]) == 0
    assert main(["run", str(loop), "--from", "pairs", "--until", "pairs"]) == 0
    capsys.readouterr()
    found = {path.name for path in (loop.parent / "run").iterdir() if path.is_dir()}
    assert found == {"world", "judge", "pairs"}


def test_a_report_needs_scores_and_shows_what_else_is_there(tmp_path: Path) -> None:
    """A report of checkpoints that came from elsewhere: no judge, no pairs, no training to show."""
    mine = [
        f"run_dir={tmp_path}",
        "generate_base.model=a/b",
        "generate_sft.model=a/c",
        "generate_dpo.model=a/d",
    ]
    pipeline = load_pipeline(QUICKSTART, mine)
    with pytest.raises(AlignError, match=r"report\.scores reads 'score', which has not run"):
        check_reads(pipeline, ["report"])
    asked = ["generate_base", "generate_sft", "generate_dpo", "score", "report"]
    (tmp_path / "scenes").mkdir()
    check_reads(pipeline, asked)
    step = next(step for step in pipeline if step.name == "report")
    settled, keys = without_unrun(step, pipeline, asked)
    assert keys[:4] == ["judge", "pairs", "training.sft", "training.dpo"]
    found = settled.recipe.model_dump(mode="json")
    assert found["judge"] is found["pairs"] is None and found["training"] == {"sft": None, "dpo": None}
    shown = ("scenes", "generate_base", "generate_sft", "generate_dpo", "score")
    assert found["stages"] == [f"{tmp_path}/{name}" for name in shown]
    assert step.recipe.model_dump()["judge"] == tmp_path / "judge"
    said = describe(pipeline, Selection(only=asked))
    assert "without training.dpo: that stage has not run" in said


def test_before_the_first_run_all_is_to_do(loop: Path) -> None:
    assert states(loop) == {name: ["to do"] for name in ("world", "judge", "pairs", "clean", "last")}
    assert list(states(loop, since="clean")) == ["clean", "last"]


def test_a_whole_run_is_complete(whole: Path) -> None:
    assert states(whole) == {name: ["complete"] for name in ("world", "judge", "pairs", "clean", "last")}


def test_a_changed_key_is_named_and_what_follows_from_it(whole: Path) -> None:
    found = states(whole, "judge.seed=4", "world.train=2")
    assert found["world"] == ["stale", "train: 1 -> 2"]
    assert found["judge"] == ["stale", "seed: 3 -> 4"]
    rewritten = "judge will rewrite its input verdicts, agreement"
    assert found["pairs"][:2] == ["stale", rewritten] and "same bytes" in found["pairs"][2]
    assert found["clean"] == ["complete"]
    assert found["last"][:2] == ["stale", "judge will rewrite its input against[1]"]
    # Keys that say how, not what, change nothing.
    assert states(whole, "judge.concurrency=3", "judge.serve.port=8001")["judge"] == ["complete"]


def test_another_path_is_a_changed_key_and_another_content_a_changed_input(whole: Path) -> None:
    root = whole.parent
    other = root / "other.jsonl"
    other.write_text((root / "candidates.jsonl").read_text())
    found = states(whole, f"pairs.candidates={other}")
    assert found["pairs"][0] == "stale" and found["pairs"][1].startswith("candidates: ")
    before = (root / "candidates.jsonl").read_text()
    (root / "candidates.jsonl").write_text(before + "\n")
    try:
        found = states(whole)
    finally:
        (root / "candidates.jsonl").write_text(before)
    assert found["judge"] == ["stale", f"input candidates changed: {root}/candidates.jsonl"]
    assert found["pairs"][1:] == [
        "judge will rewrite its input verdicts, agreement",
        f"input candidates changed: {root}/candidates.jsonl",
    ]


def test_lost_files_and_lost_inputs_are_named(whole: Path) -> None:
    root = whole.parent
    for path, stage, said in (
        (root / "run" / "pairs" / "pairs.parquet", "pairs", "its file pairs.parquet is missing or cut"),
        (root / "start.parquet", "clean", f"input data is gone: {root}/start.parquet"),
    ):
        content = path.read_bytes()
        path.unlink()
        try:
            assert states(whole)[stage][:2] == ["stale", said]
        finally:
            path.write_bytes(content)


def test_an_interrupted_attempt_goes_on_or_is_discarded(whole: Path) -> None:
    final = whole.parent / "run" / "clean"
    partial = final.with_name("clean.partial")
    final.rename(partial)
    try:
        # Killed between the last line of its manifest and the rename: nothing to do but that.
        assert states(whole)["clean"] == ["complete", "finished, but for the renaming of its folder"]
        path = partial / "manifest.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "status": "running"}))
        assert states(whole)["clean"] == ["partial", "an interrupted attempt goes on"]
        assert states(whole)["last"][1] == "clean will rewrite its input data"
        changed = states(whole, "clean.max_bits=1")["clean"]
        assert changed[0] == "to do"
        assert changed[1].startswith("an interrupted attempt is discarded: max_bits: ")
        path.write_text(json.dumps(record))
    finally:
        partial.rename(final)


def test_the_command_line_teaches_and_imports_no_torch(whole: Path) -> None:
    script = (
        "import sys\nfrom align.cli import main\n"
        f"code = main(['run', {str(whole)!r}, '--dry-run', 'rounds=2'])\n"
        "print('torch' in sys.modules or 'transformers' in sys.modules, code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False 0", done.stderr
    assert "round2_pairs" in done.stdout


def test_help_of_run_names_every_way(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    said = capsys.readouterr().out
    assert all(
        word in said for word in ("--from", "--until", "--only", "--dry-run", "rounds=3", "rounds.json")
    )
