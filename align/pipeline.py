"""`align run PIPELINE`: stages in order, each by its own contract, sharing one vLLM server a checkpoint.

A pipeline file has `run_dir`, `seed` and one section a stage, in the order to run:

    run_dir: runs/quickstart
    sft: {recipe: sft.yaml, minutes: 3}
    sft_merged: {stage: merge, model: {path: assets/base}, adapter: "${run_dir}/sft/adapter"}

`stage` is the kind of stage (default: the section's name), `recipe` a stage recipe beside the pipeline file
that the section's other keys override, `minutes` how long it took where it was measured, `about`
what to tell the user. `run_dir` and `seed` reach every stage. Every recipe is checked before
anything runs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from align.config import StageRecipe, load_tree, nearest, validate
from align.errors import RecipeError
from align.progress import say
from align.run import RunFolder, read_status
from align.serve import server_pool, stop_servers
from align.stages import Stage, load_stage, stage_names

_PIPELINE_KEYS = ("run_dir", "seed", "vars")
_SECTION_KEYS = ("stage", "recipe", "minutes", "about")
_TRAINING = ("sft", "dpo")


@dataclass(frozen=True)
class Step:
    """One stage of a pipeline with its checked recipe and what to tell about it."""

    stage: Stage
    recipe: StageRecipe
    minutes: float
    about: str


def load_pipeline(path: str | Path, overrides: Sequence[str] = ()) -> list[Step]:
    """Read a pipeline and check the recipe of every stage.

    Raises:
        RecipeError: with the stage's name and dotted path of each fault.
    """
    path = Path(path)
    tree = _read_tree(path, overrides)
    names = [str(key) for key in tree if key not in _PIPELINE_KEYS]
    if not names:
        raise RecipeError("the pipeline has no stages", where=str(path))
    return [_load_step(path, tree, name) for name in names]


def run_pipeline(steps: Sequence[Step], only: Sequence[str] = ()) -> list[RunFolder]:
    """Run the steps in order; complete ones are skipped, an interrupted one resumes.

    Args:
        only: stage names to run; all when empty.
    """
    known = [step.recipe.name for step in steps]
    for name in only:
        if name not in known:
            raise RecipeError(f"no stage {name!r} in this pipeline{nearest(name, known)}")
    chosen = [step for step in steps if not only or step.recipe.name in only]
    clock = _Clock(chosen)
    folders = []
    with server_pool():
        for number, step in enumerate(chosen, 1):
            about = step.about or _first_line(step.stage.help)
            say(f"\n[{number}/{len(chosen)}] {step.recipe.name}: {about}{clock.left()}")
            if step.stage.name in _TRAINING:
                stop_servers()  # training needs the cores, or the GPU, that a server would hold
            started = time.monotonic()
            folders.append(step.stage.run(step.recipe))
            clock.finished(step, time.monotonic() - started)
    say(f"\nall {len(chosen)} stages complete in {clock.total()}")
    return folders


def describe(steps: Sequence[Step]) -> str:
    """A table of the stages, where they write, and what is already there."""
    rows = []
    for step in steps:
        final = step.recipe.stage_dir
        partial = final.with_name(final.name + ".partial")
        state = read_status(final) or ("partial" if partial.exists() else "to do")
        rows.append(f"  {step.recipe.name:<16} {step.stage.name:<13} {state:<9} {final}")
    return "\n".join([f"  {'stage':<16} {'kind':<13} {'state':<9} folder", *rows])


class _Clock:
    """Time left, from the minutes in the pipeline file scaled by this machine's pace so far."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._left = sum(step.minutes for step in steps)
        self._expected = self._spent = 0.0
        self._start = time.monotonic()

    def left(self) -> str:
        pace = self._spent / self._expected if self._expected >= 0.5 else 1.0
        return f"  (about {max(1, round(self._left * pace))} min left in all)" if self._left else ""

    def finished(self, step: Step, seconds: float) -> None:
        self._left -= step.minutes
        if seconds > 3:  # a skipped stage says nothing about the pace
            self._expected += step.minutes
            self._spent += seconds / 60

    def total(self) -> str:
        return f"{(time.monotonic() - self._start) / 60:.1f} min"


def _read_tree(path: Path, overrides: Sequence[str]) -> DictConfig:
    if not path.is_file():
        raise RecipeError(f"no such pipeline: {path}", fix="try recipes/quickstart/pipeline.yaml")
    try:
        loaded = OmegaConf.load(path)
        if not isinstance(loaded, DictConfig) or "run_dir" not in loaded:
            raise RecipeError("a pipeline is a mapping with run_dir and one section a stage", where=str(path))
        _check_overrides(overrides, [str(key) for key in loaded])
        tree = cast(DictConfig, OmegaConf.merge(loaded, OmegaConf.from_dotlist(list(overrides))))
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the pipeline: {error}", where=str(path)) from error
    return tree


def _check_overrides(overrides: Sequence[str], sections: Sequence[str]) -> None:
    for text in overrides:
        if "=" not in text or text.startswith("="):
            raise RecipeError(f"not an override: {text!r}", fix="write stage.section.key=value")
        section = text.split("=")[0].split(".")[0]
        if section not in (*sections, *_PIPELINE_KEYS):
            raise RecipeError(
                f"override of unknown stage {section!r}{nearest(section, sections)}", where=text
            )


def _load_step(path: Path, tree: DictConfig, name: str) -> Step:
    raw = cast(dict[str, Any], OmegaConf.to_container(tree, resolve=False))
    section = raw[name]
    if not isinstance(section, dict):
        raise RecipeError(
            f"section {name!r} is not a mapping", where=str(path), fix="write it as `name: {...}`"
        )
    kind = section.get("stage", name)
    if kind not in stage_names():
        raise RecipeError(
            f"{name}.stage = {kind!r} is not a stage{nearest(kind, stage_names())}", where=str(path)
        )
    shared = {key: raw[key] for key in _PIPELINE_KEYS if key in raw}
    inline = {key: value for key, value in section.items() if key not in _SECTION_KEYS}
    base: Any = {}
    if "recipe" in section:
        file = path.parent / section["recipe"]
        if not file.is_file():
            raise RecipeError(f"{name}.recipe = {section['recipe']!r}: no such file", where=str(path))
        base = load_tree(file)
    try:
        merged = OmegaConf.merge(base, {"name": name}, shared, inline)
        values = cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True))
    except (OmegaConfBaseException, YAMLError) as error:
        raise RecipeError(f"{name}: {error}", where=str(path)) from error
    values.pop("vars", None)
    stage = load_stage(kind)
    recipe = validate(stage.recipe, values, where=f"{path}, section {name}")
    return Step(stage, recipe, float(section.get("minutes", 0)), str(section.get("about", "")))


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""
