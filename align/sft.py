"""LoRA SFT of a vision-language model on instruction rows, with TRL's SFTTrainer over shared images.

Reads instruction rows (Parquet or JSONL) and a base checkpoint; writes `adapter/` (LoRA weights),
`train_log.jsonl` (one line a step) and `quarantine.jsonl` (bad rows with reasons). The loss is on
the assistant's words alone. A killed run resumes from its last whole checkpoint and ends with the
same adapter, bit for bit on CPU.

Rows that show the same image are trained in one batch, where the image is processed, encoded and read
once: the same loss for a fraction of the work when an image has several questions. `sharing: off` is
TRL's way; where a model or a setting does not allow sharing, the stage says why and takes that way too.
A batch then shows fewer different images: give it more rows (trainer.per_device_train_batch_size).

With a `dev` section the policy answers dev pictures while it trains (`dev_log.jsonl`); `keep` says in words
what there should be most of and what must not be lost, and the step that it keeps becomes the result. A rule
that keeps nothing leaves the start, and `kept.nothing` in the manifest.

  align sft recipes/qwen2_5_vl_7b/sft.yaml trainer.learning_rate=1e-4
  accelerate launch -m align sft recipes/qwen2_5_vl_7b/sft.yaml      # several GPUs

Next: `align merge`, which folds the adapter into a checkpoint that a server can load.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from align.config.library_sections import STAGE_OWNS, section
from align.dev_check.recipe import SFT_PASSES
from align.errors import AlignError
from align.inputs.checked_rows import images_of
from align.inputs.trained_text import learnt_words
from align.inputs.training_data import CheckedRows, DataSection, lazy_dataset
from align.models.loading import ModelSection, load_model
from align.progress import say
from align.rows.schema import SFTRow
from align.run.folder import RunFolder
from align.training.loop import (
    Sharing,
    build,
    check_supervision,
    sharing_config,
    trainer_arguments,
)
from align.training.stage import MAX_LENGTH, run_training
from align.tuning.initialisation import calibration_batches
from align.tuning.method_sections import TrainingRecipe
from align.tuning.method_start import finish_start, prepare_start
from align.tuning.methods import MethodPlan, method_plan
from align.tuning.placement import Placement, learning_rate_lookup

if TYPE_CHECKING:
    from align.trainers.sft_trainer import SharedImageSFTTrainer


class SFTTrainerSection(section("SFTConfig", STAGE_OWNS)):
    """TRL's `SFTConfig` by its own names."""


class Recipe(TrainingRecipe):
    """The recipe of `align sft`."""

    name: str = "sft"
    model: ModelSection = Field(description="the base checkpoint")
    data: DataSection = Field(description="instruction rows and their images")
    trainer: SFTTrainerSection = Field(
        default=SFTTrainerSection(), description="TRL's SFTConfig by its own names"
    )
    sharing: Sharing = Field(
        default="auto",
        description="auto: rows in a batch share their image and what stands before it where that is exact; "
        "flex: with FlexAttention, on a GPU; off: never",
    )


def run(recipe: Recipe) -> RunFolder:
    """Train the adapter.

    Raises:
        AlignError: no usable row, a checkpoint that cannot be trained, a loss that is not a number.
    """
    return run_training(recipe, SFTRow, "SFT", SFT_PASSES, _trainer)


def _trainer(
    recipe: Recipe, folder: RunFolder, processor: Any, checked: CheckedRows[SFTRow]
) -> tuple[SharedImageSFTTrainer, MethodPlan, Placement]:
    from trl.trainer.sft_config import SFTConfig

    from align.trainers.sft_trainer import SharedImageSFTTrainer

    class Trainer(SharedImageSFTTrainer):
        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Checkpoints in scratch need no card."""

    model = load_model(recipe.model)
    plan = method_plan(recipe, model)
    arguments = trainer_arguments(
        recipe.trainer, recipe.seed, folder, max_length=MAX_LENGTH, assistant_only_loss=True
    )
    dataset = lazy_dataset(checked.rows, recipe.data, processor)

    def batches(size: int | None) -> Iterator[dict[str, Any]]:
        limit = arguments["max_length"]
        return calibration_batches(dataset, processor, limit, recipe.calibration, model.device, size)

    prepare_start(plan, model, batches)
    trainer = build(
        Trainer,
        model=model,
        args=build(SFTConfig, **arguments),
        train_dataset=dataset,
        processing_class=processor,
        peft_config=plan.config,
        learning_rate_of=learning_rate_lookup(plan.parts, model.config.model_type),
        sharing=sharing_config(recipe.sharing),
        image_keys=[images or None for images in images_of(checked.rows)],
    )
    if trainer.shares:
        say(f"  an image is read once for its rows in a batch: {_counted(checked.rows)}")
    if arguments["assistant_only_loss"] and not trainer.args.packing:
        _check_unlearnt_row(trainer, checked)
        _check_first_row(trainer, processor, checked, arguments["max_length"])
    return trainer, plan, finish_start(plan, trainer.model, batches, folder, recipe.model)


def _counted(rows: Sequence[SFTRow]) -> str:
    return f"{len(rows)} rows, {len({name for images in images_of(rows) for name in images})} images"


def _check_unlearnt_row(trainer: Any, checked: CheckedRows[SFTRow]) -> None:
    """That the template tells the assistant's turns apart, where one of them is not learnt."""
    if checked.unlearnt is not None:
        trainer.data_collator([trainer.train_dataset[checked.unlearnt]])


def _check_first_row(
    trainer: Any, processor: Any, checked: CheckedRows[SFTRow], max_length: int | None
) -> None:
    batch = trainer.data_collator([trainer.train_dataset[0]])
    sequence = batch["input_ids"][0][batch["attention_mask"][0].bool()].tolist()
    supervised = batch["input_ids"][0][batch["labels"][0] != -100].tolist()
    if not supervised:
        raise AlignError(
            "no token of the first row is trained on",
            fix="the chat template needs {% generation %} markers around the assistant's words",
        )
    spoken = learnt_words(processor, checked.rows[0].messages, len(checked.rows[0].images))
    length = None if max_length is None else checked.lengths[0]
    check_supervision(sequence, supervised, spoken, length, processor, trainer.model)


if __name__ == "__main__":
    raise SystemExit("run it as: python -m align sft RECIPE")
