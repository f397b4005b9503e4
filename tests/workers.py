"""The test run's workers (pytest-xdist): what they share, who runs which file, how many threads each has.

A file's tests stay together, so that what its fixtures made serves all of them, and the files that ask the
shared vLLM server go to one worker. Files with long tests start first.

xdist's own `--dist loadgroup` is not used: it writes groups into node ids, which pytest 9 no longer lets it
do, and then hands out single tests without a word.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock

from tests.repository import REPO

SERVED = "served_base"
"""The fixture that starts the shared server, and the name of the group of files that use it."""


def limit_threads() -> None:
    """Give each worker, and what it starts, its share of the cores; before torch is imported."""
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """The folder `name` that `build` fills: once for a whole run, by the worker that comes first.

    Args:
        build: gets the folder, which is not there yet; the others wait for it.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # a worker's own is <run>/popen-gw0
    folder, done = root / "shared" / name, root / "shared" / f"{name}.done"
    done.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(done.with_suffix(".lock")):
        if not done.exists():
            build(folder)
            done.touch()
    return folder


@cache
def group_of(file: str) -> str:
    """What is run by one worker: a file of tests, by its path from the root, or those of the server."""
    return SERVED if f"{SERVED}:" in (REPO / file).read_text() else file


def long_first(items: list[pytest.Item]) -> None:
    """Put the groups that have long tests first, for the run ends when the last worker does."""

    def group(item: pytest.Item) -> str:
        return group_of(item.nodeid.split("::")[0])

    long = {group(item) for item in items for mark in ("slow", "vllm") if item.get_closest_marker(mark)}
    items.sort(key=lambda item: group(item) not in long)


def scheduler(config: pytest.Config, log: object) -> object:
    """xdist's scheduler by file, over our groups; for the hook `pytest_xdist_make_scheduler`."""
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False  # not those with the most tests, but the longest first

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.split("::")[0])

    return ByGroup(config, log)  # pyright: ignore[reportArgumentType]
