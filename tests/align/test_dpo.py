"""DPO on the real base: starts at ln 2 against itself, and a kill changes nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from align import dpo
from align.config.recipe import load_recipe
from align.digest import digest_file
from align.errors import AlignError
from align.rows.schema import Message, PreferenceRow
from tests.training_recipes import dpo_recipe, kill_after_first_checkpoint, preference_rows

WEIGHTS = Path("adapter") / "adapter_model.safetensors"


@pytest.fixture(scope="module")
def dpo_run(base_checkpoint: Path, tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = dpo_recipe(tmp_path_factory.mktemp("dpo"), base_checkpoint, tiny_world)
    return dpo.run(load_recipe(dpo.Recipe, recipe)).final


def test_first_loss_is_ln_2_and_pairs_are_learnt(dpo_run: Path) -> None:
    log = [json.loads(line) for line in (dpo_run / "train_log.jsonl").read_text().splitlines()]
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert log[0]["rewards/chosen"] == pytest.approx(0.0, abs=1e-4)
    assert log[0]["rewards/rejected"] == pytest.approx(0.0, abs=1e-4)
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["rewards/margins"] > 0
    manifest = json.loads((dpo_run / "manifest.json").read_text())
    assert manifest["metrics"]["final_rewards/accuracies"] > 0.5
    assert manifest["metrics"]["steps"] == 8


def test_shared_rows_train_as_separate_ones_do(
    dpo_run: Path, base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    recipe = dpo_recipe(tmp_path, base_checkpoint, tiny_world, sharing="off")
    separate = dpo.run(load_recipe(dpo.Recipe, recipe)).final
    shared, alone = (
        [json.loads(line) for line in (run / "train_log.jsonl").read_text().splitlines()]
        for run in (dpo_run, separate)
    )
    assert len(shared) == len(alone) == 8
    for ours, theirs in zip(shared, alone, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert ours["rewards/margins"] == pytest.approx(theirs["rewards/margins"], abs=1e-4)


def test_killed_and_resumed_equals_undisturbed(
    dpo_run: Path, base_checkpoint: Path, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dpo_recipe(tmp_path, base_checkpoint, tiny_world)
    kill_after_first_checkpoint("dpo", recipe, tmp_path / "dpo.partial")
    from align.training import loop as training

    references: list[Any] = []

    def watched(trainer: Any, *rest: Any) -> dict[str, float]:
        results = training.train(trainer, *rest)
        dpo.check_reference(trainer)
        references.append((trainer.ref_model, set(trainer.model.peft_config)))
        return results

    monkeypatch.setattr("align.training.stage.train", watched)
    resumed = dpo.run(load_recipe(dpo.Recipe, recipe)).final
    assert references == [(None, {"default"})]
    assert digest_file(resumed / WEIGHTS) == digest_file(dpo_run / WEIGHTS)
    assert (resumed / "train_log.jsonl").read_text() == (dpo_run / "train_log.jsonl").read_text()


def test_an_adapter_that_does_not_start_at_zero_is_refused(
    base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    recipe = dpo_recipe(
        tmp_path, base_checkpoint, tiny_world, lora__init_lora_weights=False, trainer__max_steps=2
    )
    with pytest.raises(AlignError, match=r"first DPO step(.|\n)*differ before the first step"):
        dpo.run(load_recipe(dpo.Recipe, recipe))
    assert not (tmp_path / "dpo").exists()


def test_first_step_check_by_hand() -> None:
    logs = {"loss": math.log(2), "rewards/chosen": 0.0, "rewards/rejected": 0.0}
    dpo.check_first_step(logs, ["sigmoid"], 1e-4)
    dpo.check_first_step({**logs, "loss": 1.0}, ["hinge"], 1e-4)
    with pytest.raises(AlignError):
        dpo.check_first_step({**logs, "loss": 0.70}, ["sigmoid"], 1e-4)
    with pytest.raises(AlignError):
        dpo.check_first_step({**logs, "rewards/rejected": -0.02}, ["sigmoid"], 1e-2)


def test_missing_image_and_identical_sides_are_quarantined(
    base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    rows = preference_rows(tiny_world)
    missing = rows[0].model_copy(update={"id": "missing", "images": ["train/none.png"]})
    same = [Message(role="assistant", content="a cat")]
    identical = PreferenceRow.model_construct(
        id="same", images=rows[0].images, prompt=rows[0].prompt, chosen=same, rejected=same, meta={}
    )
    recipe = dpo_recipe(
        tmp_path, base_checkpoint, tiny_world, [missing, identical, *rows], trainer__max_steps=1
    )
    finished = dpo.run(load_recipe(dpo.Recipe, recipe))
    assert finished.manifest()["metrics"]["quarantined"] == {"image": 1, "schema": 1}
