"""LoRA DPO of a vision-language model on preference pairs, with TRL's losses over shared rows.

Reads pairs (Parquet or JSONL) and a checkpoint, normally the merged SFT one. A fresh LoRA is
trained on it; the frozen reference is the same model with the adapter off, one copy of the
weights, and a reference that cannot move on resume. The stage checks that itself: the loss of the
first step must be ln 2, and the rewards zero. Writes `adapter/`, `train_log.jsonl` (loss, rewards,
margins a step) and `quarantine.jsonl`. A killed run resumes and ends with the same adapter.

A pair is computed as one row, `[prompt | chosen | rejected]`, and its image is encoded once. The first
pairs are computed in TRL's way too, and the run stops where the two differ. `sharing: off` is TRL's way.

The loss is TRL's (`trainer.loss_type`), or an `objective` of several terms: image negatives, anchor,
token weights, quality, likelihood, beta by score gap. With `reference_store.enabled: true` the reference's
log-probs are kept in `run_dir/reference_store`: later epochs, and later runs of a sweep, find them there.

With a `dev` section the policy answers dev pictures while it trains (`dev_log.jsonl`); `keep` says in words
what there should be most of and what must not be lost, and the step that it keeps becomes the result. A rule
that keeps nothing leaves the start, and `kept.nothing` in the manifest.

  align dpo recipes/qwen2_5_vl_7b/dpo.yaml trainer.beta=0.2
  accelerate launch -m align dpo recipes/qwen2_5_vl_7b/dpo.yaml      # several GPUs

Next: `align merge`, then `align generate`, `score` and `report`. DPO: Rafailov et al., 2023.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field

from align.config.library_sections import STAGE_OWNS, section
from align.dev_check.recipe import DPO_PASSES
from align.errors import AlignError
from align.inputs.chat import sees_images
from align.inputs.trained_text import learnt_words
from align.inputs.training_data import CheckedRows, DataSection, lazy_dataset
from align.models.loading import ModelSection, load_model
from align.rows.schema import PreferenceRow
from align.run.folder import RunFolder
from align.trainers.objectives.recipe import ObjectiveSection
from align.training.loop import (
    Sharing,
    build,
    check_supervision,
    sharing_config,
    trainer_arguments,
)
from align.training.stage import MAX_LENGTH, run_training
from align.training.stores import FeatureStoreSection, ReferenceStoreSection
from align.tuning.initialisation import calibration_batches
from align.tuning.method_sections import TrainingRecipe
from align.tuning.method_start import finish_start, prepare_start
from align.tuning.methods import MethodPlan, method_plan
from align.tuning.placement import Placement, learning_rate_lookup

if TYPE_CHECKING:
    from align.trainers.objective_trainer import ObjectiveDPOTrainer

_REFERENCE = "the reference is the model with the adapter off"
_OWNED = STAGE_OWNS | {
    "sync_ref_model": _REFERENCE,
    "ref_model_mixup_alpha": _REFERENCE,
    "ref_model_sync_steps": _REFERENCE,
    "precompute_ref_log_probs": "TRL refuses it for images",
    "precompute_ref_batch_size": "TRL refuses it for images",
}


class DPOTrainerSection(section("DPOConfig", _OWNED)):
    """TRL's `DPOConfig` by its own names."""


class Recipe(TrainingRecipe):
    """The recipe of `align dpo`."""

    name: str = "dpo"
    model: ModelSection = Field(description="the checkpoint to align: the merged SFT one")
    data: DataSection = Field(description="preference pairs and their images")
    trainer: DPOTrainerSection = Field(
        default=DPOTrainerSection(), description="TRL's DPOConfig by its own names"
    )
    sharing: Sharing = Field(
        default="auto",
        description="auto: chosen and rejected share prompt and image where that is exact; "
        "flex: with FlexAttention, on a GPU; off: never",
    )
    objective: ObjectiveSection = Field(
        default=ObjectiveSection(), description="terms beside TRL's preference loss"
    )
    reference_store: ReferenceStoreSection = Field(
        default=ReferenceStoreSection(), description="the reference's log-probs, kept between epochs and runs"
    )
    feature_store: FeatureStoreSection | None = Field(
        default=None, description="vision features, kept between epochs and runs; null keeps none"
    )


def run(recipe: Recipe) -> RunFolder:
    """Train the adapter.

    Raises:
        AlignError: no usable pair, a checkpoint that cannot be trained, a reference that is not the
            starting model, a loss that is not a number.
    """
    return run_training(recipe, PreferenceRow, "DPO", DPO_PASSES, _trainer, recipe.objective.lacks)


def check_first_step(logs: dict[str, Any], loss_types: list[str], tolerance: float) -> None:
    """Before the first update policy and reference are one model: rewards are 0, the sigmoid loss ln 2.

    Args:
        logs: what TRL logged for step 1.
        loss_types: DPOConfig.loss_type; the loss itself is checked for the plain sigmoid only.
        tolerance: absolute; rounding of the model's arithmetic is all that may show.

    Raises:
        AlignError: the two differ, with the numbers.
    """
    rewards = {side: float(logs[f"rewards/{side}"]) for side in ("chosen", "rejected")}
    loss = float(logs["loss"])
    off = max(abs(value) for value in rewards.values())
    if loss_types == ["sigmoid"]:
        off = max(off, abs(loss - math.log(2)))
    if off > tolerance:
        raise AlignError(
            f"the first DPO step has loss {loss:.5f} (ln 2 = {math.log(2):.5f}) and rewards "
            f"{rewards['chosen']:.5f} and {rewards['rejected']:.5f} (both must be 0)",
            fix="policy and reference differ before the first step by an adapter that does not start at zero "
            "(lora.init_lora_weights), dropout (trainer.disable_dropout), or layers that are not "
            "deterministic",
        )


def check_reference(trainer: Any, plan: MethodPlan | None = None) -> None:
    """The reference must be the adapter switched off: no second model, no `ref` copy of the adapter.
    Where the model's own weights train (`plan.config` is None), it must be a second model, all of it frozen.

    Raises:
        AlignError: TRL keeps another reference.
    """
    if plan is not None and plan.config is None:
        reference = trainer.ref_model
        if reference is None or any(p.requires_grad for p in reference.parameters()):
            raise AlignError("the reference is not a frozen model of its own", fix="report this")
        return
    if trainer.ref_model is not None or set(trainer.model.peft_config) != {"default"}:
        adapters = ", ".join(sorted(trainer.model.peft_config))
        raise AlignError(f"the reference is not 'adapter off' (adapters: {adapters})", fix="report this")


def _trainer(
    recipe: Recipe, folder: RunFolder, processor: Any, checked: CheckedRows[PreferenceRow]
) -> tuple[ObjectiveDPOTrainer, MethodPlan, Placement]:
    from trl.trainer.dpo_config import DPOConfig

    from align.trainers.objective_trainer import ObjectiveDPOTrainer

    plain = recipe.objective.is_plain

    class Trainer(ObjectiveDPOTrainer):
        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Checkpoints in scratch need no card."""

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            super().log(logs, start_time)
            if self.state.global_step == 1 and "loss" in logs:
                loss_types = self.loss_types if plain else []
                check_first_step(logs, loss_types, _tolerance(self.model, self.args.bf16))

    model = load_model(recipe.model)
    plan = method_plan(recipe, model, reference=_REFERENCE)
    arguments = trainer_arguments(recipe.trainer, recipe.seed, folder, max_length=MAX_LENGTH)
    options = build(DPOConfig, **arguments)
    dataset = lazy_dataset(checked.rows, recipe.data, processor, for_objective=not plain)

    def batches(size: int | None) -> Iterator[dict[str, Any]]:
        return calibration_batches(
            dataset, processor, options.max_length, recipe.calibration, model.device, size
        )

    prepare_start(plan, model, batches)
    trainer = build(
        Trainer,
        model=model,
        args=options,
        ref_model=load_model(recipe.model) if plan.config is None else None,
        train_dataset=dataset,
        processing_class=processor,
        peft_config=plan.config,
        learning_rate_of=learning_rate_lookup(plan.parts, model.config.model_type),
        sharing=sharing_config(recipe.sharing),
        objective=recipe.objective,
        **_stores(recipe, model, processor, options),
    )
    check_reference(trainer, plan)
    _check_first_row(trainer, processor, checked)
    return trainer, plan, finish_start(plan, trainer.model, batches, folder, recipe.model)


def _stores(recipe: Recipe, model: Any, processor: Any, options: Any) -> dict[str, Any]:
    """The stores that the recipe asks for, opened for this model, as the trainer's arguments."""
    if recipe.sharing == "off":
        return {}
    autocast = "bfloat16" if options.bf16 else "float16" if options.fp16 else "no"
    stores: dict[str, Any] = {}
    if recipe.reference_store.enabled:
        stores["reference_store"] = recipe.reference_store.open(recipe.run_dir, model, processor, autocast)
    if recipe.feature_store is not None:
        if not sees_images(processor):
            raise AlignError("a text-only model has no vision features to keep", where="feature_store")
        stores["feature_store"] = recipe.feature_store.open(recipe.run_dir, model, processor, autocast)
    return stores


def _tolerance(model: Any, autocast: bool) -> float:
    """1e-4 for fp32 arithmetic, 1e-2 where activations are rounded to 16 bits."""
    import torch

    frozen = (parameter for parameter in model.parameters() if not parameter.requires_grad)
    weight = next(frozen, None)
    dtype = next(model.parameters()).dtype if weight is None else weight.dtype
    return 1e-4 if dtype == torch.float32 and not autocast else 1e-2


def _check_first_row(trainer: Any, processor: Any, checked: CheckedRows[PreferenceRow]) -> None:
    batch = trainer.data_collator([trainer.train_dataset[0]])
    row = checked.rows[0]
    lengths = batch["attention_mask"].sum(dim=1)
    longest = int(lengths.argmax())
    for index, side in enumerate((row.chosen, row.rejected)):
        ids, mask = batch["input_ids"][index], batch["attention_mask"][index].bool()
        supervised = ids[batch["completion_mask"][index].bool()].tolist()
        turns = [*(turn.model_copy(update={"loss": False}) for turn in row.prompt), *side]
        spoken = learnt_words(processor, turns, len(row.images), of_a_pair=True)
        counted = index == longest and trainer.args.max_length is not None
        expected = checked.lengths[0] if counted else int(lengths[index])
        check_supervision(ids[mask].tolist(), supervised, spoken, expected, processor, trainer.model)


if __name__ == "__main__":
    raise SystemExit("run it as: python -m align dpo RECIPE")
