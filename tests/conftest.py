"""Fixtures on the shipped base checkpoint and on a small embedded world."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.repository import REPO
from tests.twins import Twins, build_twin
from tests.vllm_fixtures import served_base

__all__ = ["served_base"]


@pytest.fixture(scope="session")
def base_checkpoint() -> Path:
    """The shipped base VLM: a real LLaVA of about 10 M parameters."""
    path = REPO / "assets" / "base"
    if not (path / "config.json").is_file():
        pytest.fail(f"no base checkpoint at {path}: it ships with the repository; see assets/README.md")
    return path


@pytest.fixture(scope="session")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    """`twins("qwen2_vl")` is the folder of that family's tiny random checkpoint, built once a session."""
    root = tmp_path_factory.mktemp("twins")

    def twin(name: str) -> Path:
        return root / name if (root / name).is_dir() else build_twin(name, root / name)

    return twin


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images/, annotations: 24 train, 8 dev, 8 test, 4 test_unseen_style scenes."""
    from data_tools.scenes.coco_files import write_world

    root = tmp_path_factory.mktemp("world") / "scenes"
    write_world(root, train=24, dev=8, test=8, unseen=4, seed=3)
    return root


@pytest.fixture(scope="session")
def sft_run(base_checkpoint: Path, tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished SFT stage folder: eight undisturbed steps on the base, with LoRA dropout."""
    from align import sft
    from align.config.recipe import load_recipe
    from tests.training_recipes import sft_recipe

    run_dir = tmp_path_factory.mktemp("sft")
    return sft.run(load_recipe(sft.Recipe, sft_recipe(run_dir, base_checkpoint, tiny_world))).final
