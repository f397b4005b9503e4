"""The stages by name: align's own, and those that packages register (entry-point group `align.stages`).

A stage is a module with a docstring, a class `Recipe(StageRecipe)` and `run(recipe) -> RunFolder`, which does
its work inside `align.run.stage.run_stage`. It may also have `direct(words) -> int | None`: a form of its
command without a recipe, which returns the exit code, or None where the words name a recipe after all.

What has no recipe and no run folder is a command (entry-point group `align.commands`): a module with a
docstring and `main(words) -> int`. Both registries keep `align` free of imports from the packages that build
on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from align.config.recipe import StageRecipe, nearest
from align.errors import AlignError, RecipeError
from align.run.folder import RunFolder

OWN_STAGES = {name: f"align.{name}" for name in ("sft", "dpo", "merge", "unmerge", "combine")} | {
    "classify": "align.classify.stage"
}
"""Stage -> its module; the packages that build on `align` register theirs."""


@dataclass(frozen=True)
class Stage:
    """A loaded stage: its name, recipe class, entry function, help text, and form without a recipe."""

    name: str
    recipe: type[StageRecipe]
    run: Callable[[StageRecipe], RunFolder]
    help: str
    direct: Callable[[Sequence[str]], int | None] | None = None


def stage_names() -> list[str]:
    """Names of all registered stages."""
    return sorted(_entries("align.stages"))


def command_names() -> list[str]:
    """Names of all registered commands."""
    return sorted(_entries("align.commands"))


def load_command(name: str) -> Callable[[Sequence[str]], int]:
    """Import a command's module; its `main` returns the exit code.

    Raises:
        AlignError: the registered module cannot be imported.
    """
    return _load(_entries("align.commands")[name]).main


def load_stage(name: str) -> Stage:
    """Import a stage's module (fast: stages import torch only when they run).

    Raises:
        RecipeError: no stage of that name.
        AlignError: the registered module cannot be imported.
    """
    entry = _entries("align.stages").get(name)
    if entry is None:
        raise RecipeError(f"unknown stage {name!r}{nearest(name, [*stage_names(), *command_names()])}")
    module = _load(entry)
    direct = getattr(module, "direct", None)
    return Stage(name, module.Recipe, module.run, (module.__doc__ or "").strip(), direct)


def _load(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except ImportError as error:
        raise AlignError(
            f"cannot load {entry.name!r}: {error}", fix="`align doctor` shows what is missing"
        ) from error


def _entries(group: str) -> dict[str, EntryPoint]:
    own = OWN_STAGES if group == "align.stages" else {}
    found = {name: EntryPoint(name, module, group) for name, module in own.items()}
    return {entry.name: entry for entry in entry_points(group=group)} | found
