"""What a training step on the longest row will take: `align plan`'s prediction with LoRA's defaults, what
LoRA on layers does not reach (experts, routers) left as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.rows.schema import PreferenceRow
from data_tools.preflight.decide import Decision

if TYPE_CHECKING:
    from align.planning.memory_plan import MemoryPlan


def step_memory(
    checkpoint: Path, processor: Any, longest: Decision, batch_size: int, recompute: bool
) -> MemoryPlan | None:
    """Of a LoRA step whose rows are all as long as `longest`; None without a `config.json` there.

    Args:
        recompute: whether training uses gradient checkpointing.

    Raises:
        AlignError: a config that transformers cannot build.
    """
    if not (checkpoint / "config.json").is_file():
        return None
    from align.inputs.budget import TokenBudget
    from align.models.loading import ModelSection
    from align.models.lora_places import unreached
    from align.models.weightless import meta_model
    from align.planning.memory_plan import Request, predict
    from align.planning.row_shapes import row_shape
    from align.tuning.lora import LoraSection

    section = ModelSection(path=str(checkpoint))
    row = longest.row
    budget, own = TokenBudget(processor), len(row.images)
    views = [view for view in (longest.sizes[:own], longest.sizes[own:]) if view] or [()]
    shapes = [row_shape(row, view, processor, budget) for view in views]  # with its own pictures, or worse
    request = Request(
        stage="dpo" if isinstance(row, PreferenceRow) else "sft",
        model=section,
        lora=LoraSection.model_validate({"leave_out": unreached(meta_model(section))}),
        trainer={"per_device_train_batch_size": batch_size, "gradient_checkpointing": recompute},
        row=max(shapes, key=lambda found: found[1])[0],
    )
    return predict(request, getattr(processor, "image_processor", None))
