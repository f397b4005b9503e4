"""What SFT and DPO share around TRL's trainers: arguments, progress, checkpoints, resume, results."""

from __future__ import annotations

import errno
import json
import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator

from align.config.library_sections import Passthrough
from align.errors import AlignError
from align.inputs.chat import tokenizer_of
from align.progress import Bar, say
from align.run.checkpoints import last_whole, seal
from align.run.folder import RunFolder
from align.tuning.placement import Placement

if TYPE_CHECKING:
    from transformers import Trainer

    from align.dev_check.check import DevCheck
    from align.trainers.sharing import SharingConfig

TRAIN_LOG = "train_log.jsonl"
SAVE_STEPS = 50

# YAML reads a bare `off` as false.
Sharing = Annotated[
    Literal["auto", "flex", "off"], BeforeValidator(lambda given: "off" if given is False else given)
]

# Log entries that differ from run to run, or that a resumed trainer counts from zero.
_NOT_LOGGED = {"epoch", "num_tokens", "step", "total_flos"}


def sharing_config(sharing: Sharing) -> SharingConfig:
    """What a recipe's `sharing` means to a trainer.

    Raises:
        AlignError: `flex` without a GPU.
    """
    import torch

    from align.trainers.sharing import SharingConfig

    if sharing == "flex" and not torch.cuda.is_available():
        raise AlignError("FlexAttention trains on GPUs only", where="sharing", fix="set sharing: auto")
    return SharingConfig(
        mode="off" if sharing == "off" else "auto", attention="flex" if sharing == "flex" else "auto"
    )


def trainer_arguments(section: Passthrough, seed: int, folder: RunFolder, **defaults: Any) -> dict[str, Any]:
    """Keyword arguments for TRL's config: stage defaults, then the recipe, then what the stage owns."""
    import torch

    # Of TRL's configs, which take the model's own and add a loss that nobody asked for.
    asks_for_routers = "router_aux_loss_coef" in type(section).model_fields
    settings: dict[str, Any] = {
        "save_steps": SAVE_STEPS,
        "save_total_limit": 2,
        "use_cpu": not torch.accelerator.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        **({"router_aux_loss_coef": 0.0} if asks_for_routers else {}),
        **defaults,
        **section.given(),
    }
    if settings["save_total_limit"] is not None and settings["save_total_limit"] < 2:
        raise AlignError(
            "trainer.save_total_limit must be at least 2",
            fix="the older checkpoint is what a kill during a save falls back to",
        )
    owned = {
        "output_dir": str(folder.scratch / "checkpoints"),
        "seed": seed,
        "data_seed": seed,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }
    return settings | owned


def build(kind: type, **arguments: Any) -> Any:
    """Build a config or trainer of TRL; what it refuses becomes one clear message."""
    try:
        return kind(**arguments)
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        sections = (
            "`trainer` section" if hasattr(kind, "output_dir") else "`trainer` section, or its method's"
        )
        raise AlignError(
            f"{kind.__name__} refuses: {error}", fix=f"change the recipe's {sections}"
        ) from error


def train(trainer: Trainer, folder: RunFolder, title: str, dev: DevCheck | None = None) -> dict[str, float]:
    """Run or resume training; writes `train_log.jsonl` and returns the last steps' means and the rate.

    With a dev check the model has the weights of the step that its rule keeps.

    Raises:
        AlignError: a loss that is not a number.
        OSError: the disk is full, also where a library reports it as something else.
    """
    from transformers import PrinterCallback

    checkpoints = Path(str(trainer.args.output_dir))
    start = last_whole(checkpoints) if checkpoints.is_dir() else None
    if start is not None:
        say(f"  resuming from {start.name}")
    trainer.remove_callback(PrinterCallback)
    first = int(start.name.rsplit("-", 1)[-1]) if start else 0
    if dev is not None:
        dev.attach(trainer, first if start else None)
    progress = _stage_callback(title)
    trainer.add_callback(progress)
    began = time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=str(start) if start else None)
    except Exception as error:
        if _is_disk_full(error, folder.work):
            raise OSError(errno.ENOSPC, "No space left on device", str(folder.work)) from error
        raise
    steps, history, asking = trainer.state.global_step, trainer.state.log_history, 0.0
    if dev is not None:
        dev.finish(trainer)
        asking = dev.seconds
        # A run that was killed after its last check trains one step more before it can end.
        steps = min(steps, dev.stopped_at or steps)
        history = [entry for entry in history if entry.get("step", 0) <= steps]
    if folder.is_main:
        write_log(history, folder.work / TRAIN_LOG)
    done = steps - first
    arguments: Any = trainer.args
    samples = done * arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    rate = round(samples / max(time.monotonic() - began - asking, 1e-9), 2)
    return {**trailing_means(history), "steps": float(steps), "samples_per_second": rate}


def manifest_metrics(
    results: Mapping[str, float], where: Placement, rows: int, dropped: Mapping[str, int]
) -> dict[str, Any]:
    """What a training stage records in its manifest."""
    return {
        **results,
        "rows": rows,
        "quarantined": dict(dropped),
        "trainable_parameters": where.trainable,
        "total_parameters": where.total,
        "trainable_share": where.trainable / where.total,
        "lora_modules": len(where.modules),
        "lora_placement": where.by_kind,
        "trained_components": {
            row.component: {
                "modules": row.num_modules,
                "parameters": row.trainable,
                "ranks": list(row.ranks),
                "learning_rate": row.learning_rate,
            }
            for row in where.components
        },
    }


def write_log(history: list[dict[str, Any]], path: Path) -> None:
    """One line a step with what is equal in every run of the same recipe: loss, rewards, no times."""
    with path.open("w", encoding="utf-8") as out:
        for entry in history:
            if "loss" in entry:
                kept = {key: value for key, value in sorted(entry.items()) if key not in _NOT_LOGGED}
                out.write(json.dumps({"step": entry["step"], **kept}) + "\n")


def trailing_means(history: list[dict[str, Any]], share: float = 0.1) -> dict[str, float]:
    """Means of the logged numbers over the last `share` of the steps (at least one)."""
    steps = [entry for entry in history if "loss" in entry]
    last = steps[-max(1, int(len(steps) * share)) :]
    names = sorted({name for entry in last for name in entry} - _NOT_LOGGED - {"learning_rate"})
    return {f"final_{name}": sum(float(entry[name]) for entry in last) / len(last) for name in names}


def check_supervision(
    sequence: list[int],
    supervised: list[int],
    expected_text: str,
    length: int | None,
    processor: Any,
    model: Any,
) -> None:
    """Look at one collated row: length as counted, loss on the answer and only there, end of turn in it.

    Args:
        sequence: all token ids of the row, padding removed.
        supervised: the ids that the loss is taken on.
        expected_text: the assistant's words.
        length: what the token budget counted for this row; None where no row is cut, and it matters not.

    Raises:
        AlignError: what of this does not hold.
    """
    tokenizer = tokenizer_of(processor)
    if length is not None and len(sequence) != length:
        what = f"the token budget counted {length} tokens, the processor made {len(sequence)}"
        raise AlignError(what, fix="report this processor; until then set trainer.max_length: null")
    spoken = tokenizer.decode(supervised, skip_special_tokens=True)
    if "".join(spoken.split()) != "".join(expected_text.split()):
        what = (
            f"the loss is not on the answer: it covers {spoken[:80]!r}, the answer is {expected_text[:80]!r}"
        )
        raise AlignError(
            what, fix="the chat template's generation markers must enclose the assistant's words"
        )
    ends = {tokenizer.eos_token_id}
    generation = getattr(model.generation_config, "eos_token_id", None)
    ends |= set(generation) if isinstance(generation, list) else {generation}
    if not ends & set(supervised):
        raise AlignError(
            "the answer carries no end-of-turn token: the model would never learn to stop",
            where="the checkpoint's chat template",
            fix="set model.chat_template to a template that ends assistant turns with "
            f"{tokenizer.eos_token!r} inside its generation markers",
        )


def _is_disk_full(error: BaseException, folder: Path) -> bool:
    """safetensors and torch.save turn a full disk into errors of their own."""
    said = "No space left" in str(error) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return said or ("writ" in str(error) and shutil.disk_usage(folder).free < 1 << 20)


def _stage_callback(title: str) -> Any:
    from transformers import TrainerCallback

    class StageCallback(TrainerCallback):
        """A bar with rate, loss and time left; seals checkpoints; stops on a loss that is not a number."""

        bar: Bar | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            warmup = args.get_warmup_steps(state.max_steps)
            if warmup >= state.max_steps and args.lr_scheduler_type != "constant":  # which has no warm-up
                what = f"trainer.warmup_steps = {warmup} of {state.max_steps} steps"
                say(f"  {what}: the learning rate never reaches its peak")
            self.bar = Bar(title, state.max_steps, "steps", done=state.global_step)
            self.bar.__enter__()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not logs or "loss" not in logs:
                return
            if not math.isfinite(logs["loss"]):
                raise AlignError(
                    f"the loss is {logs['loss']} at step {state.global_step}",
                    fix="lower trainer.learning_rate, or train in bf16 instead of fp16",
                )
            if self.bar:
                self.bar.step(note=_note(logs))

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self.bar:
                self.bar.__exit__(None, None, None)

    return StageCallback()


def _note(logs: Mapping[str, float]) -> str:
    parts = [f"loss {logs['loss']:.3f}"]
    if "rewards/accuracies" in logs:
        parts.append(f"right {logs['rewards/accuracies']:.0%}, margin {logs['rewards/margins']:.2f}")
    return ", ".join(parts)
