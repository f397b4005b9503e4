"""How a LoRA adapter starts: calibration on a stage's own rows, and adapters that start inside the base.

PEFT's `lora.init_lora_weights`, three kinds:

- `true`, `gaussian`, `orthogonal`, `mica`, `eva`: the update B A is zero, the base stays as it is. EVA
  (Paischer et al., 2024) takes A from the layers' inputs on calibration rows.
- `pissa`, `olora`, `corda`, `lora_ga`: the start is taken out of the base's weights, so "adapter off" is
  another model than the base. The stage saves the difference to the start, a plain LoRA of twice the rank
  for the base as it was. CorDA (Yang et al., 2024) and LoRA-GA (Wang et al., 2024) look at calibration rows.
- `loftq`, on a quantised base alone: see `align.tuning.loftq`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field

from align.config.recipe import Strict
from align.errors import AlignError
from align.progress import say

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from transformers import PreTrainedModel

Batches = Callable[[int | None], "Iterator[dict[str, torch.Tensor]]"]
"""Makes calibration batches of so many rows each, None for the recipe's number."""
CONVERTED = ("pissa", "olora", "corda", "lora_ga")
"""`init_lora_weights` that begin so are saved as a plain LoRA."""
CALIBRATED = ("eva", "corda", "lora_ga")
"""`init_lora_weights` that look at rows."""
LOFTQ = "loftq"
_ON_PLAIN_WEIGHTS = ("orthogonal", "mica")
_INITIAL = "initial_adapter"


class CalibrationSection(Strict):
    """Rows of the stage's own data that a data-driven initialisation looks at."""

    model_config = ConfigDict(strict=True)

    num_rows: int = Field(default=64, ge=1, description="how many rows, from the first on")
    batch_size: int = Field(default=4, ge=1, description="rows at a time")


def start_of(config: Any) -> str:
    """`init_lora_weights` where it names a method, lower case; else empty."""
    given = getattr(config, "init_lora_weights", None)
    return given.lower() if isinstance(given, str) else ""


def with_settings(given: dict[str, Any]) -> dict[str, Any]:
    """LoraConfig's arguments, with LoRA-GA's settings, which PEFT does not fill in, and without LoftQ,
    which PEFT would do its own way here and again whenever the adapter is loaded."""
    from peft import LoraGAConfig

    if given.get("init_lora_weights") == LOFTQ:
        return {**given, "init_lora_weights": True}
    if given.get("init_lora_weights") != "lora_ga" or given.get("lora_ga_config"):
        return given
    return {**given, "lora_ga_config": LoraGAConfig()}


def check_loftq(config: LoraConfig, reference: str, quantized: bool) -> None:
    """Refuse LoftQ where there is no rounding to make up for, or where the adapter must start at zero.

    Raises:
        AlignError: says which.
    """
    where, others = "lora.init_lora_weights", "true, gaussian or eva"
    if not quantized:
        what = "loftq makes up for the rounding of a 4-bit base, and this base is not rounded"
        raise AlignError(what, where=where, fix=f"set model.quantization: nf4, or use {others}")
    if reference:
        what = f"loftq starts elsewhere than adapter off: {reference}"
        raise AlignError(what, where=where, fix=f"use {others}")
    if config.use_dora:
        raise AlignError("loftq cannot start DoRA's magnitudes", where=where, fix="leave lora.use_dora out")


def check_initialisation(config: LoraConfig, reference: str = "", quantized: bool = False) -> None:
    """Refuse what would go wrong after hours of training, before them.

    Args:
        config: PEFT's.
        reference: why "adapter off" must be the starting model; empty where it need not.
        quantized: whether the base is.

    Raises:
        AlignError: an initialisation that the reference, or the conversion to a plain LoRA, rules out.
    """
    start, where = start_of(config), "lora.init_lora_weights"
    if quantized and start in _ON_PLAIN_WEIGHTS:
        fix = "use true, gaussian or eva, or set model.quantization: none"
        raise AlignError(f"{start} needs a base that is not quantised", where=where, fix=fix)
    if not start.startswith(CONVERTED):
        return
    if reference:
        raise AlignError(
            f"{start} changes the base's weights, and adapter off would be that base: {reference}",
            where=where,
            fix="use true, gaussian, orthogonal or eva, which leave the base as it is",
        )
    if quantized:
        raise AlignError(
            f"{start} changes the base's weights, and quantised ones would be rounded anew",
            where=where,
            fix="use true, gaussian, orthogonal or eva, or set model.quantization: none",
        )
    clash = {
        "use_dora": config.use_dora,
        "modules_to_save, or a component with train: full": config.modules_to_save,
        "use_rslora with ranks by component": config.use_rslora
        and (config.rank_pattern or config.alpha_pattern),
    }
    for name, is_set in clash.items():
        if is_set:
            what = f"{start} cannot be saved as a plain LoRA together with {name}"
            raise AlignError(what, where=where, fix="use another initialisation, or leave that out")


def calibrate_base(config: LoraConfig, model: PreTrainedModel, batches: Batches) -> None:
    """Before PEFT wraps the model: CorDA's covariances, LoRA-GA's gradients; nothing for other starts.

    Args:
        config: PEFT's.
        model: not yet wrapped.
        batches: makes the calibration batches, with labels, given the rows in each.
    """
    start = start_of(config)
    if start == "corda":
        from peft.tuners.lora.corda import preprocess_corda

        say("  CorDA looks at the layers' inputs on calibration rows")
        preprocess_corda(
            model, config, run_model=lambda: _run(model, batches(1), backward=False)
        )  # PEFT's hook takes one row at a time
    elif start == "lora_ga":
        from peft.tuners.lora.loraga import preprocess_loraga

        say("  LoRA-GA looks at the gradients of calibration rows")
        preprocess_loraga(model, config, train_step=lambda: _run(model, batches(None), backward=True))


def calibrate_adapter(peft_model: Any, batches: Batches) -> None:
    """After PEFT has wrapped the model: EVA's A, from the layers' inputs; nothing for other starts."""
    if start_of(peft_model.peft_config["default"]) != "eva":
        return
    import torch
    from peft import initialize_lora_eva_weights

    say("  EVA looks at the layers' inputs on calibration rows")
    was_training = peft_model.training
    peft_model.eval()
    with torch.no_grad():
        # every process reads the same rows
        initialize_lora_eva_weights(
            peft_model, list(batches(None)), show_progress_bar=False, gather_distributed_inputs=False
        )
    peft_model.train(was_training)


def calibration_batches(
    dataset: Any,
    processor: Any,
    max_length: int | None,
    section: CalibrationSection,
    device: Any,
    batch_size: int | None = None,
) -> Iterator[dict[str, torch.Tensor]]:
    """The stage's first rows as TRL's SFT collator makes them; of a pair, its chosen answer.

    Args:
        batch_size: rows in a batch, where it is not the section's.

    Yields:
        Inputs of the model with `labels` on the assistant's words, on `device`.

    Raises:
        AlignError: a text-only model, whose rows have another collator.
    """
    from align.trainers.answer_labels import ServedCollator

    if getattr(processor, "image_processor", None) is None:
        what = "calibration reads rows with a processor of images, and this model reads text only"
        raise AlignError(what, where="lora.init_lora_weights", fix="use another initialisation")
    collate = ServedCollator(processor, max_length=max_length, assistant_only_loss=True)
    count = min(section.num_rows, len(dataset))
    size = batch_size or section.batch_size
    for begin in range(0, count, size):
        rows = [_conversation(dataset[k]) for k in range(begin, min(begin + size, count))]
        yield {name: tensor.to(device) for name, tensor in collate(rows).items()}


def keep_start(peft_model: Any, scratch: Path) -> None:
    """Keep the adapter as it starts, for `save_as_plain_lora`; a resumed run keeps the first one."""
    if (
        start_of(peft_model.peft_config["default"]).startswith(CONVERTED)
        and not (scratch / _INITIAL).is_dir()
    ):
        partial = scratch / f"{_INITIAL}.partial"
        peft_model.save_pretrained(str(partial), safe_serialization=True)
        partial.rename(scratch / _INITIAL)


def conversion(peft_model: Any, scratch: Path) -> dict[str, str]:
    """Further arguments of `save_pretrained` that make it write a plain LoRA for the unchanged base."""
    if not start_of(peft_model.peft_config["default"]).startswith(CONVERTED):
        return {}
    return {"path_initial_model_for_weight_conversion": str(scratch / _INITIAL)}


def _run(model: Any, batches: Iterator[dict[str, torch.Tensor]], backward: bool) -> None:
    for batch in batches:
        loss = model(**batch).loss
        if backward:
            loss.backward()


def _conversation(row: dict[str, Any]) -> dict[str, Any]:
    if "messages" in row:
        return {"images": row["images"], "messages": row["messages"]}
    return {"images": row["images"], "messages": [*row["prompt"], *row["chosen"]]}
