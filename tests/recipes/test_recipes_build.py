"""Every training recipe builds its trainer on its family's twin: TRL and PEFT take what it says.

The real stage runs up to its first step: rows checked, model loaded and quantised, LoRA placed, the first
row collated and looked at. Only the model, the data and the run's folder are replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from align import dpo, sft
from align.config.model_table import read_table
from align.config.recipe import load_recipe
from align.models.families import FAMILIES
from align.models.family import Component
from align.rows.schema import Message, PreferenceRow, SFTRow, write_rows
from tests.repository import REPO
from tests.twins import IMAGE_TWINS, TEXT_TWINS, Twins

RECIPES = REPO / "recipes"
STAGES: dict[str, ModuleType] = {"sft": sft, "dpo": dpo}
TABLE = read_table()
MODEL_TYPES = {name: str((model.config or {})["model_type"]) for name, model in TABLE.items()}
MODEL_TYPES["grammar_qwen2_5_0_5b"] = "qwen2"
FILES = sorted(
    path
    for path in RECIPES.rglob("*.yaml")
    if path.stem.split("_")[0] in STAGES and path.parent.name not in ("base", "accelerate")
)


class Built(Exception):
    """Carries the trainer out of a stage that was about to train."""

    def __init__(self, trainer: Any) -> None:
        super().__init__("built")
        self.trainer = trainer


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image, two instruction rows and two pairs, each also without the image."""
    root = tmp_path_factory.mktemp("rows")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "image.png")
    prompt = [Message(role="user", content="What is this?")]
    answers = [[Message(role="assistant", content=text)] for text in ("A cat.", "A small red dog.")]
    for kind, images in (("", ["image.png"]), ("text_", [])):
        write_rows(
            root / f"{kind}sft.jsonl",
            [
                SFTRow(id=f"{k}", images=images, messages=[*prompt, *answer])
                for k, answer in enumerate(answers)
            ],
        )
        write_rows(
            root / f"{kind}dpo.jsonl",
            [
                PreferenceRow(id=f"{k}", images=images, prompt=prompt, chosen=one, rejected=other)
                for k, (one, other) in enumerate((answers, answers[::-1]))
            ],
        )
    return root


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Recipes name chat templates relative to it."""
    monkeypatch.chdir(REPO)
    yield


def test_every_image_family_has_recipes() -> None:
    assert len(TABLE) >= 18 and len(FILES) >= 14
    # BLIP-2 and those whose published sizes nobody has written down
    without = {"blip-2", "cohere2_vision", "minicpmv4_6", "minicpmv4_7", "gemma4_unified"}
    assert set(IMAGE_TWINS) - set(MODEL_TYPES.values()) == without


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RECIPES)))
def test_builds(
    path: Path, rows: Path, twins: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = STAGES[path.stem.split("_")[0]]
    model = REPO / "assets" / "base" if path.parent.name == "quickstart" else twins(model_type(path))
    kind = stage.__name__.rsplit(".", 1)[-1]
    sees = model_type(path) not in TEXT_TWINS
    changes = [
        f"run_dir={tmp_path}",
        f"model.path={model}",
        f"data.path={rows / (kind if sees else f'text_{kind}')}.jsonl",
    ]
    if path.parent.name == "quickstart":  # its dev pictures are drawn by a stage; see test_dev_check.py
        changes += ["dev=null", "keep=null"]
    recipe = load_recipe(stage.Recipe, path, [*changes, f"data.image_root={rows}"] if sees else changes)

    check(trainer_of(stage, recipe, monkeypatch), recipe)


@pytest.mark.parametrize("variant", ["lora", "qlora"])
@pytest.mark.parametrize("kind", ["sft", "dpo"])
@pytest.mark.parametrize("name", TABLE)
def test_what_init_writes_builds(
    name: str,
    kind: str,
    variant: str,
    rows: Path,
    twins: Twins,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from align.planning.fitting import LORA, QLORA, Fit
    from align.planning.starting import write_folder

    fit = Fit({"lora": LORA, "qlora": QLORA}[variant], ())
    write_folder(TABLE[name], tmp_path / "recipes", 24, {"sft": fit, "dpo": fit})
    changes = {
        "run_dir": tmp_path / "run",
        "model.path": twins(MODEL_TYPES[name]),
        "data.path": rows / f"{kind}.jsonl",
        "data.image_root": rows,
    }
    path = tmp_path / "recipes" / f"{kind}.yaml"
    recipe = load_recipe(STAGES[kind].Recipe, path, [f"{key}={value}" for key, value in changes.items()])
    assert recipe.model.quantization == ("nf4" if variant == "qlora" else "none")
    check(trainer_of(STAGES[kind], recipe, monkeypatch), recipe)


def trainer_of(stage: Any, recipe: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a stage would train with by this recipe; it stops there."""

    def stop(trainer: Any, *_: Any) -> None:
        raise Built(trainer)

    monkeypatch.setattr("align.training.stage.train", stop)
    with pytest.raises(Built) as caught:
        stage.run(recipe)
    return caught.value.trainer


def model_type(path: Path) -> str:
    """Which twin stands for the recipe's model."""
    return MODEL_TYPES.get(path.parent.name, "llava")


def check(trainer: Any, recipe: Any) -> None:
    """The trainer is what the recipe says: TRL's arguments, LoRA's places and sizes, the quantised layers."""
    import torch
    from bitsandbytes.nn.modules import Linear4bit
    from peft.tuners.lora import LoraLayer

    for name, value in recipe.trainer.given().items():
        assert getattr(trainer.args, name) == as_trl_keeps_it(name, value), name
    base = trainer.model.get_base_model()
    family = FAMILIES[base.config.model_type]
    components: list[Component] = recipe.lora.given().get("components", ["language"])
    adapted = {name: module for name, module in base.named_modules() if isinstance(module, LoraLayer)}
    linear = {
        name.removesuffix(".base_layer"): module
        for name, module in base.named_modules()
        if isinstance(module, torch.nn.Linear) and ".lora_" not in name
    }
    left = tuple(f".{name}" for name in recipe.lora.given().get("leave_out", []))
    inside = {
        name
        for name in linear
        if family.modules.component_of(name) in components and not (left and name.endswith(left))
    }
    assert set(adapted) == inside
    assert {module.r["default"] for module in adapted.values()} == {recipe.lora.given()["r"]}
    quantised = {name for name, module in linear.items() if isinstance(module, Linear4bit)}
    whole_language = {name for name in linear if family.modules.component_of(name) == "language"}
    assert quantised == (whole_language if recipe.model.quantization == "nf4" else set())
    text_pairs = family.processor is None and family.sharing.decoders and isinstance(recipe, dpo.Recipe)
    assert trainer.shares == bool(text_pairs or family.sharing.images == "equal"), trainer.obstacles


def as_trl_keeps_it(name: str, value: Any) -> Any:
    """A recipe's value as the config holds it after its own conversions."""
    return [value] if name == "loss_type" and isinstance(value, str) else value
