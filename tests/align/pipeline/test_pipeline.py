from __future__ import annotations

from pathlib import Path

import pytest

from align.cli import main
from align.errors import RecipeError
from align.pipeline import Selection, describe, load_pipeline, run_pipeline

PIPELINE = """
run_dir: {run_dir}
seed: 3
world: {{stage: scenes, train: 2, dev: 1, test: 1, unseen: 1, about: four small pictures, minutes: 1}}
again: {{recipe: again.yaml, stage: scenes, dev: 2}}
"""


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    (tmp_path / "again.yaml").write_text("run_dir: elsewhere\ntrain: 1\ndev: 1\ntest: 1\nunseen: 0\n")
    path = tmp_path / "pipeline.yaml"
    path.write_text(PIPELINE.format(run_dir=tmp_path / "run"))
    return path


def test_run_dir_and_seed_reach_every_stage_and_inline_keys_win(pipeline: Path, tmp_path: Path) -> None:
    world, again = (step.recipe.model_dump() for step in load_pipeline(pipeline, ["world.train=5"]))
    assert (world["name"], world["train"], world["seed"]) == ("world", 5, 3)
    assert (again["run_dir"], again["train"], again["dev"], again["seed"]) == (tmp_path / "run", 1, 2, 3)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("wrold.train=5", "unknown stage 'wrold' (did you mean 'world'?)"),
        ("world.trian=5", "unknown key 'trian' = 5 (did you mean 'train'?)"),
        ("world.stage=scnes", "(did you mean 'scenes'?)"),
        ("world.train=few", "train = 'few'"),
    ],
)
def test_a_wrong_pipeline_is_told_before_anything_runs(pipeline: Path, override: str, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_pipeline(pipeline, [override])
    assert said in str(error.value)


def test_runs_in_order_then_redoes_nothing(
    pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = load_pipeline(pipeline)
    assert describe(steps).count("to do") == 2
    run_pipeline(steps, Selection(only=["world"]))
    assert (tmp_path / "run" / "world" / "manifest.json").exists() and not (
        tmp_path / "run" / "again"
    ).exists()
    run_pipeline(steps)
    said = capsys.readouterr().out
    assert "four small pictures" in said and "nothing to do" in said and "about 1 min left" in said
    assert describe(steps).count("complete") == 2


def test_command_line_tells_errors_in_one_message_and_exits_nonzero(
    pipeline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(pipeline), "world.trian=5"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: unknown key 'trian'") and "Traceback" not in said
    assert main(["scnes", str(pipeline)]) == 2
    assert main(["run", str(pipeline), "--only", "wrld"]) == 2


def test_help_explains_every_key_of_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["scenes", "--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert "test images in the held-out art style" in said and "unseen (default 200)" in said
    assert main(["--help"]) == 0 and "align dpo" in capsys.readouterr().out
