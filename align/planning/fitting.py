"""Which way to train a model fits a GPU: the first that does, by the prediction of `align plan`.

In order: LoRA in 16 bits, without gradient checkpointing where even the longest row has room for that; LoRA
with one row a step; QLoRA, with the recipe's rows and with one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from align.config.model_table import TABLE, KnownModel
from align.config.recipe import load_tree, validate
from align.errors import AlignError
from align.models.families import reads_images
from align.models.loading import ModelSection, load_processor
from align.models.proposal import checked_modules
from align.planning.memory_plan import MemoryPlan, Request, Stage, predict
from align.planning.planned_batch import RowShape, image_processor_of
from align.progress import readable

ROW = RowShape(prompt=64, answers=(256,), images=((480, 640),))
"""What a row is taken as, as `align plan` assumes it: a picture of 640x480, a question, an answer."""
_CHECKPOINTING = "trainer.gradient_checkpointing"
_ROWS, _ACCUMULATED = "trainer.per_device_train_batch_size", "trainer.gradient_accumulation_steps"


@dataclass(frozen=True)
class Variant:
    """One way to train: what people call it, and the dotted recipe keys that make it."""

    words: str
    changes: Mapping[str, Any]


LORA = Variant("LoRA", {})
QLORA = Variant("QLoRA", {"model.quantization": "nf4", "trainer.optim": "paged_adamw_8bit"})


@dataclass(frozen=True)
class Fit:
    """The variant that fits.

    Attributes:
        tried: every variant's words and predicted peak in bytes, in the order that they were tried.
    """

    variant: Variant
    tried: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Shapes:
    """A model as far as memory asks: a folder with its config.json, and what makes its pixels.

    Attributes:
        processor: the image processor; None for a text-only model.
        origin: where the sizes are from, for people.
    """

    folder: Path
    processor: Any
    origin: str


def shapes_of(model: KnownModel, scratch: Path) -> Shapes:
    """Read from its folder, from the hub's cache, from the table, or from the hub, in this order.

    Args:
        scratch: an empty folder for a config that the table records.

    Raises:
        AlignError: no config can be had, or the family is unknown; it then shows the proposal.
    """
    from transformers import AutoConfig

    section = ModelSection(path=model.path)
    folder, origin = _config_folder(model, section, scratch)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        fix = "give a checkpoint's folder, with its config.json, that the installed transformers knows"
        raise AlignError(f"cannot read the config: {error}", where=str(folder), fix=fix) from error
    try:
        checked_modules(config)
    except AlignError as error:
        fix = "check these names, copy the recipes of a known model, and put the section into them"
        raise AlignError(error.what, where=model.path, fix=fix) from error
    if not reads_images(config.to_dict()):
        return Shapes(folder, None, origin)
    try:
        processor: Any = load_processor(ModelSection(path=str(folder)))
        return Shapes(folder, processor.image_processor, origin)
    except AlignError:  # a config alone, or no chat template: neither decides memory
        return Shapes(folder, image_processor_of(config), origin)


def recorded_config(sizes: Mapping[str, Any]) -> Any:
    """transformers' config of the sizes that the table of models records."""
    from transformers import AutoConfig

    return AutoConfig.for_model(**sizes)


def _config_folder(model: KnownModel, section: ModelSection, scratch: Path) -> tuple[Path, str]:
    from transformers.utils.hub import cached_file

    from align.models.loading import check_folder

    if section.is_local:
        check_folder(section)
        return Path(model.path), model.path
    try:
        cached = cached_file(model.path, "config.json", local_files_only=True)
        return Path(str(cached)).parent, "the hub's config.json"
    except OSError:
        pass
    if model.config is not None:
        recorded_config(model.config).save_pretrained(scratch)
        return scratch, f"recipes/models.yaml, after {model.source}"
    try:
        return section.folder(), "the hub's config.json"
    except OSError as error:
        raise AlignError(
            f"no config.json of {model.path} is here, and the hub cannot be reached or has none",
            fix="give a folder with the checkpoint or its config.json, or a name of recipes/models.yaml",
        ) from error


def choose(
    stage: Stage,
    model: KnownModel,
    shapes: Shapes,
    gigabytes: float,
    reserve: float,
    tell: Callable[[str], None],
) -> Fit:
    """The first variant whose step fits.

    Args:
        gigabytes: the GPU's memory, in GiB as `align plan` counts.
        reserve: GiB of it that are left to the device.
        tell: gets a line for each prediction; a large model's takes half a minute.

    Raises:
        AlignError: none fits.
    """
    row = replace(ROW, answers=ROW.answers * (1 if stage == "sft" else 2))
    row = row if shapes.processor is not None else replace(row, images=())
    tried: list[tuple[str, int]] = []

    def predicted(variant: Variant, row: RowShape) -> MemoryPlan:
        plan = predict_step(stage, model, variant.changes, shapes, row)
        tried.append((variant.words, plan.peak))
        tell(f"  {stage}: {variant.words} needs {readable(plan.peak)} of {gigabytes:g} GiB")
        return plan

    for variant in _variants(_values(stage, model)):
        plan = predicted(variant, row)
        if plan.fits(gigabytes, reserve):
            wide = Variant("LoRA without gradient checkpointing", {_CHECKPOINTING: False})
            if not variant.changes:
                room = model.max_length - plan.tokens
                longest = replace(row, answers=tuple(length + max(0, room) for length in row.answers))
                if predicted(wide, longest).fits(gigabytes, reserve):
                    variant = wide
            return Fit(variant, tuple(tried))
    least = min(peak for _, peak in tried)
    size = least / 2**30 + reserve
    raise AlignError(
        f"no way to train {model.title} fits {gigabytes:g} GB: {tried[-1][0]} needs {readable(least)}, and "
        f"{reserve:g} GiB are left to the device",
        where=stage,
        fix=f"take a smaller model, or a GPU of {size:.1f} GB or more (--gpu)",
    )


def _variants(values: Mapping[str, Any]) -> Iterator[Variant]:
    rows = int(values["trainer"]["per_device_train_batch_size"])
    one_row = {_ROWS: 1, _ACCUMULATED: rows * int(values["trainer"]["gradient_accumulation_steps"])}
    yield LORA
    if rows > 1:
        yield Variant("LoRA with one row a step", one_row)
    yield QLORA
    if rows > 1:
        yield Variant("QLoRA with one row a step", {**QLORA.changes, **one_row})


def _values(stage: Stage, model: KnownModel) -> dict[str, Any]:
    """The stage's base with the model's own values over it."""
    over = {"run_dir": f"runs/{model.name}", **model.over_base(stage)}
    merged = OmegaConf.merge(load_tree(TABLE.parent / "base" / f"{stage}.yaml"), over)
    return cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True))


def predict_step(
    stage: Stage, model: KnownModel, changes: Mapping[str, Any], shapes: Shapes, row: RowShape
) -> MemoryPlan:
    """The memory of a step by recipes/base, the model's own values and `changes`, which are dotted keys."""
    from align import dpo, sft

    tree = OmegaConf.create(_values(stage, model))
    for key, value in changes.items():
        OmegaConf.update(tree, key, value)
    OmegaConf.update(tree, "model.path", str(shapes.folder))
    recipe_class: Any = {"sft": sft, "dpo": dpo}[stage].Recipe
    made = cast(dict[str, Any], OmegaConf.to_container(tree))
    recipe = validate(recipe_class, made, where=f"recipes/base/{stage}.yaml")
    request = Request(stage, recipe.model, recipe.lora, recipe.trainer.given(), row)
    return predict(request, shapes.processor)
