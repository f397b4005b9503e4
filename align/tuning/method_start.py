"""The two places in a training stage where a method acts: before PEFT wraps the model, and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from align.tuning.initialisation import Batches, calibrate_adapter, calibrate_base, keep_start, start_of
from align.tuning.loftq import start_from_rounding
from align.tuning.placement import Placement, place_dropout, placement

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from align.config.model_ref import ModelRef
    from align.run.folder import RunFolder
    from align.tuning.methods import MethodPlan


def prepare_start(plan: MethodPlan, model: PreTrainedModel, batches: Batches) -> None:
    """What must be known of the model before the trainer wraps it."""
    if plan.method == "lora":
        config: Any = plan.config
        calibrate_base(config, model, batches)


def finish_start(
    plan: MethodPlan, model: Any, batches: Batches, folder: RunFolder, base: ModelRef
) -> Placement:
    """The adapter as it will start, and the table of what trains, held against the plan.

    Args:
        plan: of `align.tuning.methods.method_plan`.
        model: as the trainer has it.
        batches: makes calibration batches.
        folder: whose scratch keeps the start of an adapter that changes the base.
        base: the checkpoint that was loaded.

    Raises:
        AlignError: the plan was not met.
    """
    if plan.method != "lora":
        return placement(model, plan.parts)
    # PEFT's replicated layers have names that the plan, made before, cannot have.
    where = placement(model, () if getattr(plan.config, "layer_replication", None) else plan.parts)
    place_dropout(model, plan.parts)
    if folder.is_main:
        keep_start(model, folder.scratch)
    if plan.from_rounding:
        start_from_rounding(model, base.folder())
    if start_of(plan.config) == "eva":
        calibrate_adapter(model, batches)
        where = placement(model, plan.parts, exact=False)
    return where
