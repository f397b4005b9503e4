"""What a training stage leaves behind: an adapter, or, where the model's own weights train, a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from align.config.model_ref import PIXELS, ModelRef
from align.digest import MANIFEST
from align.merging.merge_checks import check_keys
from align.models.adapter_folder import ADAPTER, BASE_RECORD
from align.models.checkpoint_weights import copy_left_out
from align.models.loading import CHAT_TEMPLATE, ModelSection
from align.run.folder import RunFolder
from align.tuning.initialisation import conversion
from align.tuning.methods import MethodPlan

CHECKPOINT = "checkpoint"


def save_trained(
    trainer: Any, plan: MethodPlan, section: ModelSection, folder: RunFolder, processor: Any
) -> str:
    """Write `adapter/` or `checkpoint/`, and return what to do next.

    The checkpoint has the dtype that it was trained in, and the base's own tensor names.

    Raises:
        AlignError: tensor names that differ from the base's.
    """
    if plan.config is not None:
        model = trainer.accelerator.unwrap_model(trainer.model)
        save_adapter(trainer, section, folder, **conversion(model, folder.scratch))
        kept = folder.final / ADAPTER
        if plan.config.is_prompt_learning:
            return (
                f"the prompt does not merge; load it beside its base with PeftModel.from_pretrained: {kept}"
            )
        return f"align merge (adapter: {kept})"
    out = folder.work / CHECKPOINT
    trainer.save_model(str(out))  # every process takes part where the weights are sharded
    if folder.is_main:
        (out / "training_args.bin").unlink(missing_ok=True)
        processor.save_pretrained(str(out))
        copy_left_out(section.folder(), out)
        if section.is_local:
            model = trainer.accelerator.unwrap_model(trainer.model)
            check_keys(Path(section.path), out, bool(model.config.tie_word_embeddings))
    return f"align generate (checkpoint: {folder.final / CHECKPOINT})"


def save_adapter(trainer: Any, model: ModelRef, folder: RunFolder, **options: Any) -> Path:
    """Write `adapter/`: the weights, PEFT's config, the base's digest and quantisation in `base.json`, and
    the chat template if the recipe replaced it."""
    out = folder.work / ADAPTER
    if not folder.is_main:
        return out
    wrapped = trainer.accelerator.unwrap_model(trainer.model)
    wrapped.save_pretrained(str(out), safe_serialization=True, **options)
    (out / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    base = json.loads((folder.work / MANIFEST).read_text())["inputs"]["model"]
    record: dict[str, Any] = {"path": model.path, "digest": base["digest"], "quantization": "none"}
    record |= {name: value for name in PIXELS if (value := getattr(model, name)) is not None}
    if isinstance(model, ModelSection):
        record["quantization"] = model.quantization
    (out / BASE_RECORD).write_text(json.dumps(record, indent=1) + "\n")
    if isinstance(model, ModelSection) and model.chat_template is not None:
        (out / CHAT_TEMPLATE).write_text(model.chat_template.read_text(encoding="utf-8"), encoding="utf-8")
    return out
