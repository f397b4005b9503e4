"""Fixtures on the shipped base checkpoint and on a small embedded world."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.repository import REPO
from tests.twins import NEEDED, Twins, build_twin
from tests.vllm_fixtures import served_base
from tests.workers import built_once, limit_threads, long_first, scheduler

__all__ = ["served_base"]

limit_threads()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where workers share the tests, long ones come first."""
    if hasattr(config, "workerinput"):
        long_first(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Who gets which."""
    return scheduler(config, log)


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

    def built(name: str) -> Path:
        if name in NEEDED:
            pytest.importorskip(NEEDED[name])
        return built_once(tmp_path_factory, f"twins/{name}", lambda folder: build_twin(name, folder))

    return built


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images/, annotations: 24 train, 8 dev, 8 test, 4 test_unseen_style scenes."""
    from data_tools.scenes.coco_files import write_world

    return built_once(
        tmp_path_factory, "scenes", lambda root: write_world(root, train=24, dev=8, test=8, unseen=4, seed=3)
    )


@pytest.fixture(scope="session")
def sft_run(base_checkpoint: Path, tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished SFT stage folder: eight undisturbed steps on the base, with LoRA dropout."""
    from align import sft
    from align.config.recipe import load_recipe
    from tests.training_recipes import sft_recipe

    def train(run_dir: Path) -> None:
        run_dir.mkdir()
        sft.run(load_recipe(sft.Recipe, sft_recipe(run_dir, base_checkpoint, tiny_world)))

    return built_once(tmp_path_factory, "sft_run", train) / "sft"
