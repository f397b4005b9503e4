"""What `model` names: one answer for folders and hub ids, in every stage that takes a model."""

from __future__ import annotations

import json
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from pydantic import ValidationError

from align.config.model_ref import ModelRef
from align.config.recipe import StageRecipe, validate
from align.errors import AlignError, RecipeError
from align.models.image_words import image_words
from align.models.loading import ModelSection
from align.pipeline.stages import load_stage
from align.run.folder import RunFolder
from align.run.state import input_record
from align.serving.server import ServeSettings, engine_args

COMMIT = "a" * 40
HUB = {"path": "some-owner/some-model", "revision": COMMIT}
NEEDED: dict[str, dict[str, Any]] = {
    "sft": {"data": {"path": "d", "image_root": "i"}},
    "dpo": {"data": {"path": "d", "image_root": "i"}},
    "merge": {"adapter": "a"},
    "classify": {"data": {"path": "d"}},
    "audit": {"pairs": "p", "image_root": "i"},
    "negatives": {"negatives": {"kind": "retrieved", "pairs": "p"}, "image_root": "i"},
    "sample": {"prompts": "p"},
    "judge": {"kind": "claims", "candidates": "c", "image_root": "i"},
    "generate": {"tasks": {"pope": {"type": "pope", "files": {"random": "q"}, "image_root": "i"}}},
}
"""Stage -> what its recipe must have beside `model`."""


def recipe_of(stage: str, model: Any, run_dir: Path) -> Any:
    values = {"run_dir": run_dir, **deepcopy(NEEDED[stage])}
    values.get("negatives", values)["model"] = model
    return validate(load_stage(stage).recipe, values, stage)


def model_of(recipe: Any) -> Any:
    return getattr(recipe, "negatives", recipe).model


class Recipe(StageRecipe):
    name: str = "stage"


@pytest.mark.parametrize("stage", NEEDED)
def test_every_stage_takes_a_hub_id_with_its_revision(stage: str, tmp_path: Path) -> None:
    recipe = recipe_of(stage, HUB, tmp_path)
    record = input_record("model", model_of(recipe))
    assert record == {
        "path": f"some-owner/some-model@{COMMIT}",
        "digest": f"id:some-owner/some-model@{COMMIT}",
    }
    assert model_of(recipe_of(stage, "some-owner/some-model", tmp_path)).path == "some-owner/some-model"
    again = validate(type(recipe), recipe.model_dump(mode="json"), "its own recipe.yaml")
    assert model_of(again) == model_of(recipe)


def test_a_revision_is_part_of_what_a_run_was_made_from(tmp_path: Path) -> None:
    recipe = Recipe(run_dir=tmp_path)
    with RunFolder.open(recipe, {"model": ModelRef.model_validate(HUB)}) as folder:
        folder.complete(metrics={}, next_step="")
    assert RunFolder.open(recipe, {"model": ModelRef.model_validate(HUB)}).is_complete
    assert not RunFolder.open(recipe, {"model": ModelRef(path=HUB["path"])}).is_complete


def test_one_rule_tells_a_folder_from_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for path in ("runs/gone", "./owner/name", "../owner/name", "/owner/name", "name", "a/b/c", ".x/name"):
        model = ModelRef(path=path)
        assert model.is_local, path
        with pytest.raises(AlignError, match="no such checkpoint"):
            model.digest()
        with pytest.raises(AlignError, match="missing input model"):
            input_record("model", model)
    assert not ModelRef(path="owner/name").is_local
    assert ModelRef.of(Path("owner/name")).is_local  # a Path is never a hub id
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert ModelRef(path="owner/name").is_local


def test_a_folder_with_a_revision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="model: a folder has no revision"):
        recipe_of("sample", {"path": str(tmp_path), "revision": "main"}, tmp_path)
    with pytest.raises(ValidationError):
        ModelSection(path=str(tmp_path), revision="main")


def test_a_path_alone_is_written_as_it_was_read() -> None:
    assert ModelRef(path="a/b").model_dump() == "a/b"
    assert ModelRef.model_validate(HUB).model_dump() == HUB
    assert ModelSection.model_validate("a/b").model_dump()["path"] == "a/b"


def test_vllm_is_told_the_revision() -> None:
    pairs = dict(pairwise(engine_args(ModelRef.model_validate(HUB), ServeSettings())))
    assert (pairs["--model"], pairs["--revision"]) == ("some-owner/some-model", COMMIT)
    assert "--revision" not in engine_args(ModelRef(path="some-owner/some-model"), ServeSettings())


def test_files_of_the_hub_are_read_at_the_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--some-owner--some-model"
    files = {"config.json": {"image_token_index": 9}, "tokenizer.json": {"added_tokens": []}}
    for commit, word in ((COMMIT, "<picture>"), ("b" * 40, "<image>")):
        files["tokenizer.json"] = {"added_tokens": [{"id": 9, "content": word}]}
        folder = repository / "snapshots" / commit
        folder.mkdir(parents=True)
        for name, value in files.items():
            (folder / name).write_text(json.dumps(value))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("b" * 40)
    assert image_words(ModelRef.model_validate(HUB)) == ("<picture>",)
    assert image_words(ModelRef(path="some-owner/some-model")) == ("<image>",)
