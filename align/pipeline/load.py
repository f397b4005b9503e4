"""A pipeline file: `run_dir`, `seed` and one section a stage, in the order to run.

    run_dir: runs/quickstart
    sft: {recipe: sft.yaml, minutes: 3}
    sft_merged: {stage: merge, model: {path: assets/base}, adapter: "${run_dir}/sft/adapter"}

`stage` is the kind of stage (default: what the recipe says, else the section's name), `recipe` a stage recipe
beside the pipeline file that the section's other keys override, `minutes` how long it took where it was
measured, `about` what to tell the user. `run_dir` and `seed` reach every stage, `vars` holds what sections
share, and `rounds` with `round` repeats stages (`rounds.py`). Every recipe is checked before anything runs.

A file for any model has `models`, a table of models beside it, and `model`, which is given on the command
line: the entry's name, title, path and max_model_len are `vars.model`, and what it says of SFT and DPO lies
over the files that their sections name as `recipe`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from align.config.model_table import find_model
from align.config.recipe import StageRecipe, load_tree, nearest, validate
from align.errors import RecipeError
from align.pipeline.graph import Link, find_links
from align.pipeline.round_end import ROUNDS_FILE, Believed, read_end
from align.pipeline.rounds import SEED_STEP, Loop, Slot, read_loop, slots
from align.pipeline.stages import Stage, load_stage, stage_names

_PIPELINE_KEYS = ("run_dir", "seed", "vars", "rounds", "round", "model", "models")
_NOTHING: Believed = {}
_SECTION_KEYS = ("stage", "recipe", "minutes", "about")


@dataclass(frozen=True)
class Step:
    """One stage of a pipeline with its checked recipe and what to tell about it.

    Attributes:
        reads: what its recipe names in folders of earlier stages.
        slot: where it stands in the rounds; None outside a pipeline file.
        left_out: why it does not run; empty for one that does.
    """

    stage: Stage
    recipe: StageRecipe
    minutes: float
    about: str
    reads: Sequence[Link] = ()
    slot: Slot | None = None
    left_out: str = ""

    @property
    def name(self) -> str:
        """The stage's name in the pipeline, and its folder's."""
        return self.recipe.name


@dataclass(frozen=True)
class Pipeline:
    """The stages in order, and the file that they came from, to be read again when a round has ended."""

    steps: Sequence[Step]
    loop: Loop | None = None
    path: Path | None = None
    overrides: Sequence[str] = ()

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    @property
    def names(self) -> list[str]:
        """Of the stages, in order; the same whatever the rounds do."""
        return [step.name for step in self.steps]

    def knowing(self, believed: Believed) -> Pipeline:
        """The same pipeline as the rounds stand when the folders of these stages can be trusted."""
        if self.loop is None or self.path is None or read_end(self.loop, believed) == self.loop.ended:
            return self
        return load_pipeline(self.path, self.overrides, believed)


def load_pipeline(path: str | Path, overrides: Sequence[str] = (), believed: Believed = _NOTHING) -> Pipeline:
    """Read a pipeline and check the recipe of every stage, and that each reads only what is there before it.

    Args:
        believed: stages whose folders may say that a round was not kept; those of others may be stale.

    Raises:
        RecipeError: with the stage's name and dotted path of each fault.
    """
    path = Path(path)
    tree = _read_tree(path, overrides)
    names = _sections(tree)
    if not names:
        raise RecipeError("the pipeline has no stages", where=str(path))
    try:
        run_dir = Path(str(tree["run_dir"]))
        section = OmegaConf.to_container(tree["round"], resolve=True) if "round" in tree else None
        loop = read_loop(tree.get("rounds", 1), section, names, run_dir, str(path))
    except OmegaConfBaseException as error:
        raise RecipeError(f"round: {error}", where=str(path)) from error
    if loop is not None:
        loop = replace(loop, ended=read_end(loop, believed))
    _check_round_overrides(overrides, tree, loop)
    steps = [_load_step(path, tree, slot, loop) for slot in slots(names, loop)]
    links = find_links([step.recipe for step in steps], run_dir, [ROUNDS_FILE] if loop else [])
    steps = [replace(step, reads=found) for step, found in zip(steps, links, strict=True)]
    _check_rounds_go_on(steps, loop, str(path))
    return Pipeline(steps, loop, path, overrides)


def _read_tree(path: Path, overrides: Sequence[str]) -> DictConfig:
    if not path.is_file():
        raise RecipeError(f"no such pipeline: {path}", fix="try recipes/quickstart/pipeline.yaml")
    try:
        loaded = OmegaConf.load(path)
        if not isinstance(loaded, DictConfig) or "run_dir" not in loaded:
            raise RecipeError("a pipeline is a mapping with run_dir and one section a stage", where=str(path))
        _check_overrides(overrides, [str(key) for key in loaded])
        tree = cast(DictConfig, OmegaConf.merge(loaded, OmegaConf.from_dotlist(list(overrides))))
        if "models" in tree:
            tree = _with_model(path, tree)
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the pipeline: {error}", where=str(path)) from error
    return tree


def _with_model(path: Path, tree: DictConfig) -> DictConfig:
    """With `vars.model`, and in `models`, instead of the table's name, what lies over recipes by kind."""
    table = path.parent / str(tree["models"])
    if OmegaConf.is_missing(tree, "model") or tree.get("model") is None:
        fix = f"add model=NAME, a name or hub id of {table}, or any model's hub id or folder"
        raise RecipeError("the pipeline is for any model, and none is given", where=str(path), fix=fix)
    known = find_model(str(tree["model"]), table)
    about = {key: getattr(known, key) for key in ("name", "title", "path", "max_model_len")}
    over = {kind: known.over_base(kind) for kind in ("sft", "dpo")}
    return cast(DictConfig, OmegaConf.merge({"vars": {"model": about}}, tree, {"models": over}))


def _check_overrides(overrides: Sequence[str], sections: Sequence[str]) -> None:
    for text in overrides:
        if "=" not in text or text.startswith("="):
            raise RecipeError(f"not an override: {text!r}", fix="write stage.section.key=value")
        section = _section_of(text)
        if section not in (*sections, *_PIPELINE_KEYS) and _stage_of_round(section, sections) is None:
            raise RecipeError(
                f"override of unknown stage {section!r}{nearest(section, sections)}", where=text
            )


def _section_of(override: str) -> str:
    return override.split("=")[0].split(".")[0]


def _sections(tree: DictConfig) -> list[str]:
    """The stages' sections; those that override one round's stage (`round2_dpo`) are none."""
    named = [str(key) for key in tree if key not in _PIPELINE_KEYS]
    return [name for name in named if "round" not in tree or _stage_of_round(name, named) is None]


def _stage_of_round(name: str, sections: Collection[str]) -> int | None:
    """2 for `round2_dpo` where `dpo` is a section."""
    number, _, stage = name.removeprefix("round").partition("_")
    is_one = name.startswith("round") and number.isdecimal() and stage in sections
    return int(number) if is_one else None


def _check_round_overrides(overrides: Sequence[str], tree: DictConfig, loop: Loop | None) -> None:
    """A file may hold sections for rounds that are not asked for now; who types one means it."""
    asked = 1 if loop is None else loop.asked
    for text in overrides:
        number = _stage_of_round(_section_of(text), [str(key) for key in tree])
        if number is not None and loop is not None and not 2 <= number <= asked:
            raise RecipeError(
                f"rounds = {asked}: there is no round {number} to override",
                where=text,
                fix=f"add rounds={number}" if number > 1 else "round 1 has the names of the file",
            )


def _load_step(path: Path, tree: DictConfig, slot: Slot, loop: Loop | None) -> Step:
    raw = cast(dict[str, Any], OmegaConf.to_container(tree, resolve=False))
    name, section = slot.section, raw[slot.section]
    if not isinstance(section, dict):
        raise RecipeError(
            f"section {name!r} is not a mapping", where=str(path), fix="write it as `name: {...}`"
        )
    base: Any = {}
    if "recipe" in section:
        file = path.parent / section["recipe"]
        if not file.is_file():
            raise RecipeError(f"{name}.recipe = {section['recipe']!r}: no such file", where=str(path))
        base = load_tree(file)
    kind = section.get("stage") or base.get("stage") or name
    if kind not in stage_names():
        raise RecipeError(
            f"{name}.stage = {kind!r} is not a stage{nearest(kind, stage_names())}", where=str(path)
        )
    inline = {key: value for key, value in section.items() if key not in _SECTION_KEYS}
    if "recipe" in section and "models" in raw:
        base = OmegaConf.merge(base, raw["models"].get(kind, {}))
    try:
        seed = int(tree.get("seed", 0))
        merged = OmegaConf.merge(
            base, {"name": slot.name}, *_shared(raw, seed, slot, loop), inline, *_of_round(raw, slot, loop)
        )
        values = cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True, throw_on_missing=True))
    except (OmegaConfBaseException, YAMLError) as error:
        raise RecipeError(f"{slot.name}: {error}", where=str(path)) from error
    values.pop("vars", None)
    left_out = ""
    if loop is not None:
        del values["round"]
        values, left_out = loop.redirect(values, slot), loop.why_left_out(slot)
    stage = load_stage(kind)
    recipe = validate(stage.recipe, values, where=f"{path}, section {slot.name}")
    minutes, about = float(section.get("minutes", 0)), str(section.get("about", ""))
    return Step(stage, recipe, minutes, about, slot=slot, left_out=left_out)


def _shared(raw: Mapping[str, Any], seed: int, slot: Slot, loop: Loop | None) -> Iterator[dict[str, Any]]:
    """What the pipeline gives every stage: `run_dir`, `vars`, and the seed and the variables of its round."""
    shared = {key: raw[key] for key in ("run_dir", "seed", "vars") if key in raw}
    if loop is not None:
        shared["round"] = loop.variables(slot)
    if slot.round > 1:
        shared["seed"] = seed + SEED_STEP * (slot.round - 1)
    yield shared


def _of_round(raw: Mapping[str, Any], slot: Slot, loop: Loop | None) -> Iterator[dict[str, Any]]:
    """What one round has of its own: values by round, and a section of its name (`round2_dpo`)."""
    if loop is not None and slot.round:
        yield loop.values_of(slot)
        if slot.round > 1:
            yield raw.get(slot.name) or {}


def _check_rounds_go_on(steps: Sequence[Step], loop: Loop | None, where: str) -> None:
    """A second round that reads nothing the first one made would train on the same checkpoint again."""
    if loop is None or loop.asked < 2:
        return
    made = [step.name for step in steps if step.recipe.stage_dir in Path(loop.checkpoint(1)).parents]
    second = [step for step in steps if step.slot is not None and step.slot.round == 2]
    if not any(link.source in made for step in second for link in step.reads):
        raise RecipeError(
            "no stage of round 2 reads the checkpoint that round 1 makes",
            where=where,
            fix="write ${round.model} where a stage of the round names the model that it starts from",
        )
