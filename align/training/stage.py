"""The story that SFT and DPO have in common: rows, model, trainer, dev check, training, what is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from align.dev_check import hold_out, open_dev_check
from align.inputs.row_checks import lacks_nothing
from align.inputs.training_data import CheckedRows, check_rows
from align.models.checkpoint_weights import check_convertible
from align.models.loading import load_processor
from align.progress import quiet_libraries, say
from align.rows.schema import PreferenceRow, SFTRow
from align.run.folder import RunFolder
from align.run.processes import wait_for_main
from align.run.stage import Done, run_stage
from align.training.efficiency import Efficiency
from align.training.foreign_rows import readable
from align.training.loop import manifest_metrics, train
from align.tuning.methods import PROMPTS, MethodPlan
from align.tuning.placement import Placement
from align.tuning.save_trained import save_trained

MAX_LENGTH = 2048
"""`trainer.max_length` where the recipe says none, in tokens, image tokens included."""

R = TypeVar("R", SFTRow, PreferenceRow)
MakeTrainer = Callable[[Any, RunFolder, Any, CheckedRows[R]], tuple[Any, MethodPlan, Placement]]
"""(recipe, folder, processor, rows) -> the trainer on a loaded model, what trains of it, and where."""


def run_training(
    recipe: Any,
    row: type[R],
    title: str,
    passes: float,
    make_trainer: MakeTrainer[R],
    lacks: Callable[[R], str] = lacks_nothing,
) -> RunFolder:
    """Train by a recipe of `align sft` or `align dpo`, and leave a finished stage folder.

    Args:
        row: what the data holds.
        title: what a person reads: SFT, DPO.
        passes: forward and backward passes that a row costs, for the price of dev checks.
        make_trainer: loads the model and builds the stage's own trainer.
        lacks: what the recipe needs and a row has not, in words; empty for a row that has all.

    Raises:
        AlignError: no usable row, a checkpoint that cannot be trained, a loss that is not a number.
    """

    def work(folder: RunFolder) -> Done:
        quiet_libraries()
        wait_for_main()
        say(f"{title} of {recipe.model.path} on {', '.join(map(str, recipe.data.files()))}")
        processor = load_processor(recipe.model)
        data = readable(recipe.data, row, folder)
        read = recipe.model_copy(update={"data": data.section})
        max_length = read.trainer.given().get("max_length", MAX_LENGTH)
        checked, heldout = hold_out(
            read.dev,
            read.data,
            check_rows(row, read.data, processor, max_length, folder, lacks),
            lambda other, name: check_rows(row, other, processor, max_length, folder, quarantine_name=name),
        )
        dev = open_dev_check(
            read.dev,
            read.keep,
            folder,
            processor,
            image_root=read.data.image_root,
            rows=checked.rows,
            lengths=checked.lengths,
            passes=passes,
            heldout=heldout,
        )
        if recipe.model.is_local:
            _check_written_again(recipe)
        trainer, plan, where = make_trainer(read, folder, processor, checked)
        if not recipe.model.is_local:  # the hub's files are here once the model is loaded
            _check_written_again(recipe)
        where.show(trainer.args.learning_rate)
        _say_routers(trainer)
        efficiency = Efficiency(trainer)
        results = train(trainer, folder, title, dev)
        following = save_trained(trainer, plan, read.model, folder, processor)
        efficiency.write(folder, where)
        metrics = manifest_metrics(results, where, len(checked.rows), checked.dropped)
        metrics |= {} if dev is None else dev.metrics()
        metrics |= {"sets": data.sets} if data.sets else {}
        if hasattr(trainer, "store_counts"):
            metrics["stores"] = trainer.store_counts()
        return Done(metrics, following)

    inputs = {"model": recipe.model, **recipe.data.inputs()}
    return run_stage(recipe, inputs | ({} if recipe.dev is None else recipe.dev.inputs()), work)


def _check_written_again(recipe: Any) -> None:
    """That what is trained can be written in the form of the base's files, where weights change at all."""
    if recipe.method not in PROMPTS and not recipe.model.trust_remote_code:
        check_convertible(recipe.model.folder())


def _say_routers(trainer: Any) -> None:
    """Whether the loss that spreads tokens over experts is on, of a model with experts."""
    from align.trainers.sharing import has_experts

    if not has_experts(trainer.accelerator.unwrap_model(trainer.model).config):
        return
    weight = trainer.args.router_aux_loss_coef
    if weight:
        say(f"  router losses are on (trainer.router_aux_loss_coef: {weight:g})")
    else:
        say("  router losses are off: no loss spreads tokens over experts (trainer.router_aux_loss_coef)")
