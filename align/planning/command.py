"""How much memory a recipe's training takes, before any weight is there: `align plan RECIPE`.

Runs one step of the SFT or DPO recipe on a model of shapes, built from the checkpoint's config.json, and
counts the tensors alive at its peak: weights, gradients, optimizer states, activations. Rows are the longest
of the recipe's data where that exists, else as --image, --prompt_tokens and --answer_tokens say. Not in it:
the device's context and what its allocator keeps back, for which --reserve leaves room.

  align plan recipes/qwen2_5_vl_7b/dpo.yaml trainer.per_device_train_batch_size=2
  align plan recipes/qwen2_5_vl_7b/dpo.yaml --config DIR        # a folder that holds config.json alone
  align plan recipes/qwen2_5_vl_7b/sft.yaml --full              # as if every weight trained
  align plan runs/quickstart/sft                                # beside what that run measured
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from align.config.recipe import StageRecipe, read_yaml, validate
from align.errors import AlignError, RecipeError
from align.progress import readable, say
from align.run.memory import read_efficiency

if TYPE_CHECKING:
    from align.inputs.image_tokens import Size
    from align.planning.memory_plan import MemoryPlan, Request, Stage
    from align.planning.planned_batch import RowShape

GPUS = (16, 24, 48, 80)
RESERVE = 1.5
RECIPE = "recipe.yaml"
_NO_IMAGE = "none"


def main(words: Sequence[str]) -> int:
    """The command; returns the exit code.

    Raises:
        AlignError: no recipe of a training stage, or a model that cannot be built from its config.
    """
    given = _parse(words)
    stage, recipe = _recipe(given)
    measured = read_efficiency(recipe.stage_dir)
    device = given.device or (measured or {}).get("device", "gpu")
    plan, row, origin = plan_recipe(given, stage, recipe, device)
    if given.json:
        fits = {str(size): plan.fits(size, given.reserve) for size in GPUS}
        report = {"recipe": given.recipe, "row": vars(row), "row_from": origin, "reserve_gib": given.reserve}
        say(json.dumps({**report, **plan.to_json(), "fits_gib": fits, "measured": measured}, indent=1))
    else:
        title = f"{given.recipe}: {plan.rows} rows a step, {_row_words(row, plan)} ({origin})"
        show(plan, title, given.reserve, measured)
    return 0


def plan_recipe(
    given: argparse.Namespace, stage: Stage, recipe: Any, device: Literal["gpu", "cpu"]
) -> tuple[MemoryPlan, RowShape, str]:
    """The plan, the row it is of, and where that row is from."""
    from align.planning.memory_plan import predict
    from align.planning.planned_batch import image_processor_of

    request, processor, origin = _request(given, stage, recipe, device)
    if processor is None:
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(
                request.model.path, revision=request.model.revision, local_files_only=request.model.is_local
            )
        except (OSError, ValueError) as error:
            raise AlignError(
                f"no config.json of {request.model.path} is here or can be reached",
                fix="give a folder with the checkpoint's config.json: --config DIR",
            ) from error
        image_processor = image_processor_of(config)
    else:
        image_processor = getattr(processor, "image_processor", None)
    if image_processor is None:
        request = replace(request, row=replace(request.row, images=()))
    return predict(request, image_processor), request.row, origin


def show(
    plan: MemoryPlan, title: str, reserve: float = RESERVE, measured: dict[str, Any] | None = None
) -> None:
    """Print the table; `measured` is what a run of the recipe recorded."""
    say(title)
    found = {**measured["parts"], "peak": measured["peak"]} if measured else {}
    if measured:
        say(f"  {'':<12} {'predicted':>11} {'measured':>11}")
    notes = {"weights": _dtypes(plan), "optimizer": _paged(plan), "peak": "of tensors"}
    for name, size in [*plan.parts.items(), ("peak", plan.peak)]:
        beside = f" {readable(found[name]):>11}" if name in found else ""
        say(f"  {name:<12} {readable(size):>11}{beside}   {notes.get(name, '')}".rstrip())
    if measured and measured["step_seconds"]:
        step = measured["step_seconds"]
        say(f"  a step took {step['median']:.2f} s (median of {step['steps']} on a {measured['device']})")
    share = f"{plan.trainable:,} of {plan.total:,} parameters ({plan.trainable_share:.2%})"
    say(f"  trains {share}")
    sizes = (
        ("adapter", plan.adapter_bytes),
        ("checkpoint", plan.checkpoint_bytes),
        ("merged", plan.merged_bytes),
    )
    say("  on disk: " + ", ".join(f"{name} {readable(size)}" for name, size in sizes))
    fits = ", ".join(f"{size} GB {'yes' if plan.fits(size, reserve) else 'no'}" for size in GPUS)
    say(f"  fits, with {reserve:g} GiB left for the rest: {fits}")
    if plan.check > plan.peak:
        what = "a copy in fp32, on the CPU where it does not fit"
        say(f"  {readable(plan.check)} at least at the start, when both paths are compared in {what}")
    if plan.experts:
        say(f"  of the weights {readable(plan.experts)} are experts, which bitsandbytes does not round")
    if plan.obstacles:
        say("  rows do not share their prefix: " + "; ".join(plan.obstacles))


def _request(
    given: argparse.Namespace, stage: Stage, recipe: Any, device: Literal["gpu", "cpu"]
) -> tuple[Request, Any, str]:
    """What to predict, the processor where there is one, and where the row is from."""
    from align.planning.memory_plan import Request

    model = recipe.model
    if given.config is not None:
        model = model.model_copy(update={"path": str(given.config), "chat_template": None})
    processor, row, origin = _row_of_data(stage, recipe, model, given)
    sides = 1 if stage == "sft" else 2
    if row is None:
        from align.planning.planned_batch import RowShape

        images = () if given.image is None else (given.image,)
        row = RowShape(given.prompt_tokens, (given.answer_tokens,) * sides, images)
    if recipe.method not in ("lora", "full"):
        fix = "memory beside the base is small there; predict it as method=lora"
        raise AlignError(f"`align plan` predicts LoRA and full training, not {recipe.method}", fix=fix)
    lora = None if given.full or recipe.method == "full" else recipe.lora
    sharing = recipe.sharing != "off"
    request = Request(stage, model, lora, recipe.trainer.given(), row, sharing, device)
    return request, processor, origin


def _row_of_data(stage: Stage, recipe: Any, model: Any, given: argparse.Namespace) -> tuple[Any, Any, str]:
    """Processor, longest row and its origin; Nones where checkpoint or data are not here."""
    from align.models.loading import load_processor
    from align.planning.row_shapes import longest_row
    from align.rows.foreign import is_ours
    from align.rows.schema import PreferenceRow, SFTRow

    assumed = "assumed"
    try:
        processor = load_processor(model)
    except AlignError:
        return None, None, assumed
    root = recipe.data.image_root
    if given.assume or not recipe.data.path.is_file() or not (root is None or root.is_dir()):
        return processor, None, assumed
    if recipe.data.sets or not is_ours(recipe.data.path):
        say("  several sets, and rows of other tools, are not read here: import them for their longest row")
        return processor, None, assumed
    limit = recipe.trainer.given().get("max_length", 2048)
    cls = SFTRow if stage == "sft" else PreferenceRow
    return processor, longest_row(cls, recipe.data, processor, limit), f"the longest of {recipe.data.path}"


def _recipe(given: argparse.Namespace) -> tuple[Stage, Any]:
    from align import dpo, sft

    path = Path(given.recipe)
    path = path / RECIPE if path.is_dir() else path
    values = read_yaml(path, given.overrides)
    classes: dict[Stage, type[StageRecipe]] = {"sft": sft.Recipe, "dpo": dpo.Recipe}
    said = given.stage or values.get("stage")
    if said in classes:
        return said, validate(classes[said], values, where=str(path))
    return _only_fit(classes, values, str(path))


def _only_fit(
    classes: Mapping[Stage, type[StageRecipe]], values: dict[str, Any], where: str
) -> tuple[Stage, StageRecipe]:
    """The stage that takes the recipe, where it says none.

    Raises:
        RecipeError: both take it, or neither does.
    """
    fits: list[tuple[Stage, StageRecipe]] = []
    faults = []
    for stage, cls in classes.items():
        try:
            fits.append((stage, validate(cls, values, where=where)))
        except RecipeError as error:
            faults.append(f"{stage}: {error.what}")
    if len(fits) == 1:
        return fits[0]
    if fits:
        fix = "say which: `stage: sft` or `stage: dpo` in the recipe, or --stage sft or dpo"
        raise RecipeError("a recipe of SFT as well as of DPO", where=where, fix=fix)
    fix = "say which it should be, for its faults alone: --stage sft or dpo"
    raise RecipeError("not a recipe of SFT or DPO\n" + "\n".join(faults), where=where, fix=fix)


def _row_words(row: RowShape, plan: MemoryPlan) -> str:
    answers = " and ".join(map(str, row.answers))
    images = f"{plan.image_tokens} image tokens" if row.images else "no image"
    return f"{images}, {row.prompt} of prompt, {answers} of answer"


def _dtypes(plan: MemoryPlan) -> str:
    return ", ".join(f"{dtype} {readable(size)}" for dtype, size in _largest(plan.weights_by_dtype))


def _paged(plan: MemoryPlan) -> str:
    return f"{readable(plan.pageable)} of it may leave the GPU (paged)" if plan.pageable else ""


def _largest(parts: dict[str, int]) -> list[tuple[str, int]]:
    found = sorted(parts.items(), key=lambda item: -item[1])
    return [(name, size) for name, size in found if size > 0.005 * found[0][1]]


def _size(text: str) -> Size | None:
    if text == _NO_IMAGE:
        return None
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT or {_NO_IMAGE}")
    return int(height), int(width)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="align plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe of SFT or DPO, or a run's folder")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument(
        "--stage", choices=["sft", "dpo"], help="default: as the recipe says, or the only one that takes it"
    )
    parser.add_argument("--config", type=Path, metavar="DIR", help="folder with config.json, for model.path")
    parser.add_argument("--full", action="store_true", help="every weight trains, no adapter")
    parser.add_argument(
        "--device", choices=["gpu", "cpu"], help="whose LM head is counted; default: the run's, else gpu"
    )
    parser.add_argument("--assume", action="store_true", help="take the assumed row, also where data is")
    parser.add_argument(
        "--image", type=_size, default=(480, 640), metavar="WxH", help="default 640x480; or none"
    )
    parser.add_argument("--prompt_tokens", type=int, default=64, metavar="N", help="text only (default 64)")
    parser.add_argument(
        "--answer_tokens", type=int, default=256, metavar="N", help="of each answer (default 256)"
    )
    parser.add_argument(
        "--reserve",
        type=float,
        default=RESERVE,
        metavar="GIB",
        help=f"left to the device (default {RESERVE})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_intermixed_args(words)
