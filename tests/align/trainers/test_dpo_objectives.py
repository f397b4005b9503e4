"""`align dpo` with an objective and with its stores: rows that fit, and a sweep that pays once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align import dpo
from align.config.recipe import load_recipe
from align.digest import digest_file
from align.errors import AlignError
from tests.training_recipes import dpo_recipe, kill_after_first_checkpoint, preference_rows


def losses(stage: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (stage / "train_log.jsonl").read_text().splitlines()]


def test_the_second_run_of_a_sweep_asks_the_reference_nothing(
    base_checkpoint: Path, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaModel

    forwards: list[bool] = []
    forward = LlamaModel.forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        layer = self.layers[0].self_attn.q_proj
        forwards.append(bool(getattr(layer, "disable_adapters", False)))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LlamaModel, "forward", counted)
    recipe = dpo_recipe(tmp_path, base_checkpoint, tiny_world)

    def run(name: str, *changes: str) -> tuple[dict[str, Any], int, list[float]]:
        forwards.clear()
        done = dpo.run(load_recipe(dpo.Recipe, recipe, [f"name={name}", "trainer.beta=0.4", *changes]))
        return done.manifest()["metrics"]["stores"], sum(forwards), losses(done.final)

    computed = run("storeless")
    store = "reference_store.enabled=true"
    first = run("first", "trainer.beta=0.1", "feature_store={}", store)
    second = run("second", "feature_store={}", store)
    assert computed[0] == {} and computed[1] == 8, "one forward of the reference a step"
    assert first[0]["reference"] == {"hits": 8, "misses": 24} and first[1] == 6, "24 rows, 8 of them twice"
    assert second[0]["reference"] == {"hits": 32, "misses": 0} and second[1] == 0
    assert second[0]["features"]["misses"] == 0
    assert second[2] == pytest.approx(computed[2], abs=1e-5)


def test_a_run_killed_with_its_store_ends_as_an_undisturbed_one(
    base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    ends = []
    for name in ("undisturbed", "killed"):
        recipe = dpo_recipe(tmp_path / name, base_checkpoint, tiny_world, reference_store={"enabled": True})
        if name == "killed":
            kill_after_first_checkpoint("dpo", recipe, tmp_path / name / "dpo.partial")
        done = dpo.run(load_recipe(dpo.Recipe, recipe))
        assert done.manifest()["metrics"]["stores"]["reference"]["hits"] > 0
        ends.append((digest_file(done.final / "adapter" / "adapter_model.safetensors"), losses(done.final)))
    assert ends[0] == ends[1]


def test_rows_without_what_a_term_needs_are_quarantined(
    base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    rows = preference_rows(tiny_world)
    unscored = [row.model_copy(update={"rejected_images": rows[5].images}) for row in rows[:4]]
    scored = [row.model_copy(update={"meta": {"margin": 2.0}}) for row in rows[4:]]
    fitting = [row.model_copy(update={"rejected_images": rows[0].images}) for row in scored[4:]]
    recipe = dpo_recipe(tmp_path, base_checkpoint, tiny_world, [*unscored, *scored[:4], *fitting])
    objective = "objective={pair_beta: {}, conditional: [{image: retrieved}], anchor: {}}"
    done = dpo.run(load_recipe(dpo.Recipe, recipe, [objective, "trainer.max_steps=1"]))
    metrics = done.manifest()["metrics"]
    assert metrics["quarantined"] == {"lacks": 8} and metrics["rows"] == len(fitting)
    log = json.loads((done.final / "train_log.jsonl").read_text())
    assert log["terms/anchor"] == pytest.approx(0.693147, abs=1e-4)
    reasons = (done.final / "quarantine.jsonl").read_text()
    assert "meta.margin" in reasons and "rejected_images" in reasons


def test_a_wrong_term_stops_before_anything_is_loaded(
    base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    recipe = dpo_recipe(tmp_path, base_checkpoint, tiny_world)
    with pytest.raises(AlignError, match=r"objective\.ankor(.|\n)*anchor"):
        load_recipe(dpo.Recipe, recipe, ["objective.ankor={}"])
