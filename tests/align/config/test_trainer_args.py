"""Recipe sections read from TRL's and PEFT's source: strict, fast, and true to what is installed."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from align import dpo, sft
from align.config.library_sections import source_fields
from align.config.recipe import load_recipe, validate
from align.errors import RecipeError
from tests.repository import REPO

BASE = {"run_dir": "runs/x", "model": {"path": "a/b"}, "data": {"path": "rows.jsonl", "image_root": "images"}}


def _recipe(**sections: Any) -> sft.Recipe:
    return validate(sft.Recipe, {**BASE, **sections}, where="test")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"trainer": {"learning_rte": 1e-4}},
            r"trainer\.learning_rte.* 0\.0001 \(did you mean 'learning_rate'",
        ),
        ({"trainer": {"learning_rate": "fast"}}, r"trainer\.learning_rate = 'fast'"),
        ({"trainer": {"max_steps": 1.5}}, r"trainer\.max_steps = 1\.5"),
        ({"trainer": {"max_steps": 0}}, r"trainer\.max_steps = 0: must be at least 1, or -1"),
        ({"trainer": {"num_train_epochs": 0}}, r"trainer\.num_train_epochs = 0: must be more than 0"),
        ({"trainer": {"per_device_train_batch_size": 0}}, r"train_batch_size = 0: must be at least 1"),
        ({"trainer": {"gradient_accumulation_steps": 0}}, r"accumulation_steps = 0: must be at least 1"),
        (
            {"trainer": {"learning_rate": -1e-4}},
            r"trainer\.learning_rate = -0\.0001: must be a number from 0",
        ),
        ({"trainer": {"learning_rate": float("nan")}}, r"trainer\.learning_rate = nan: must be"),
        ({"lora": {"r": 0}}, r"lora\.r = 0: must be at least 1"),
        ({"lora": {"lora_dropout": 2}}, r"lora\.lora_dropout = 2: must be from 0 to below 1"),
        ({"trainer": {"output_dir": "x"}}, r"trainer\.output_dir = 'x': .*run_dir/name"),
        ({"lora": {"lora_alfa": 3}}, r"lora\.lora_alfa.*did you mean 'lora_alpha'"),
        ({"lora": {"components": ["eyes"]}}, r"lora\.components\.0 = 'eyes'"),
        ({"model": {"path": "a/b", "quantization": "nf3"}}, r"model\.quantization = 'nf3'"),
    ],
)
def test_wrong_keys_and_types_name_path_and_value(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        _recipe(**sections)


def test_minus_one_step_is_all_epochs() -> None:
    assert _recipe(trainer={"max_steps": -1}).trainer.given() == {"max_steps": -1}


def test_only_what_the_recipe_sets_is_kept() -> None:
    recipe = _recipe(trainer={"learning_rate": 1, "lr_scheduler_type": "cosine"})
    assert recipe.trainer.given() == {"learning_rate": 1.0, "lr_scheduler_type": "cosine"}
    assert recipe.model_dump(mode="json")["trainer"] == {"learning_rate": 1.0, "lr_scheduler_type": "cosine"}


def test_a_wrong_recipe_stops_without_importing_torch(tmp_path: Path) -> None:
    path = tmp_path / "sft.yaml"
    path.write_text("run_dir: runs/x\ntrainer: {learning_rte: 1}\n")
    code = (
        "import sys; from align.cli import main\n"
        f"code = main(['sft', {str(path)!r}])\n"
        "heavy = {'torch', 'transformers', 'trl', 'peft', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=False)
    assert done.returncode == 2, done.stderr
    assert "did you mean 'learning_rate'" in done.stderr


def test_fields_are_those_of_the_installed_classes() -> None:
    from peft import LoraConfig
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.sft_config import SFTConfig

    for cls in (SFTConfig, DPOConfig, LoraConfig):
        real = {field.name for field in dataclasses.fields(cls) if field.init and field.name[0] != "_"}
        assert set(source_fields(cls.__name__)) == real


@pytest.mark.parametrize("model", ["quickstart", "llava_1_5_7b", "qwen2_5_vl_7b"])
def test_shipped_recipes_build_trl_configs(model: str, tmp_path: Path) -> None:
    from peft import LoraConfig
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.sft_config import SFTConfig

    for stage, config in ((sft, SFTConfig), (dpo, DPOConfig)):
        name = stage.__name__.rsplit(".", 1)[-1]
        recipe = load_recipe(stage.Recipe, REPO / "recipes" / model / f"{name}.yaml")
        config(output_dir=str(tmp_path), use_cpu=True, **recipe.trainer.given())
        own = ("components", "blocks", "target_modules")
        LoraConfig(**{key: value for key, value in recipe.lora.given().items() if key not in own})
