"""One timed training run, in a process of its own: prints one line of JSON.

    python -m benchmarks.dpo_variant '{"variant": "TRL, default", "model": ..., ...}'

Peak memory is the resident set's maximum above its size after the imports, so it holds weights,
optimiser and activations, and not the libraries.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.timed_process import answer, peak_bytes, use_compact_head

VARIANTS: dict[str, dict[str, Any]] = {
    "TRL, default": {"trl": True, "gradient_checkpointing": True},
    "TRL, no checkpointing": {"trl": True},
    "TRL, tuned: compact head, checkpointing": {"trl": True, "compact": True, "gradient_checkpointing": True},
    "TRL, tuned: compact head": {"trl": True, "compact": True},
    "ours: shared row": {"attention": "dense", "trl_head": True},
    "ours: and a head on small tiles": {"attention": "dense"},
    # what `auto` takes is split from 300 tokens a pair on, and dense below, where that is faster
    "ours: and split attention": {"attention": "auto"},
    "ours: and checkpointing": {"attention": "auto", "gradient_checkpointing": True},
    "ours: and reference store": {"attention": "auto", "reference": True},
    "ours: and feature store": {"attention": "auto", "reference": True, "features": True},
}


def main(order: dict[str, Any]) -> dict[str, Any]:
    """Train as ordered; the record has seconds of wall and CPU an epoch, losses, peak memory."""
    import torch
    from peft import LoraConfig
    from transformers import AutoProcessor, LlavaForConditionalGeneration, TrainerCallback
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    from align.trainers.dpo_trainer import SharedPrefixDPOTrainer
    from benchmarks.synthetic_vlm import pairs

    variant = VARIANTS[order["variant"]]
    if variant.get("compact"):
        use_compact_head()
    if variant.get("trl_head"):
        from align.trainers import shared_forward

        shared_forward._has_own_head = lambda model: False
    dataset = pairs(order["pairs"], order["P"], order["C"], order["V"])
    processor = AutoProcessor.from_pretrained(order["model"])
    imported = peak_bytes()
    record: dict[str, Any] = {"wall": [], "cpu": [], "losses": []}

    class Clock(TrainerCallback):
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.perf_counter(), time.process_time()

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            record["wall"].append(time.perf_counter() - self.started[0])
            record["cpu"].append(time.process_time() - self.started[1])

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                record["losses"].append(logs["loss"])

    with tempfile.TemporaryDirectory() as folder:
        arguments = DPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=variant.get("gradient_checkpointing", False),
            num_train_epochs=order["epochs"],
            per_device_train_batch_size=order["batch"],
            learning_rate=1e-4,
            max_length=None,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        )
        model = LlavaForConditionalGeneration.from_pretrained(order["model"], dtype=torch.float32)
        common: dict[str, Any] = {
            "model": model.requires_grad_(False),
            "args": arguments,
            "train_dataset": dataset,
            "processing_class": processor,
            "peft_config": LoraConfig(r=8, target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"),
            "callbacks": [Clock()],
        }
        if variant.get("trl"):
            trainer: Any = DPOTrainer(**common)
        else:
            trainer = SharedPrefixDPOTrainer(**common, **_ours(variant, Path(folder)))
        trainer.train()
    record["memory"] = peak_bytes() - imported
    return record


def _ours(variant: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Arguments of our trainer; its check of the first batch against TRL's way is not timed."""
    from align.trainers.sharing import SharingConfig

    own: dict[str, Any] = {"sharing": SharingConfig(attention=variant["attention"], self_check=False)}
    if "reference" not in variant:
        return own
    from align.trainers.content import pixels_digest
    from align.trainers.feature_store import FeatureStore
    from align.trainers.reference_store import ReferenceStore
    from align.training.tensor_shards import TensorShards

    own["image_digest"] = pixels_digest
    own["reference_store"] = ReferenceStore(TensorShards(folder / "reference"), {})
    if "features" in variant:
        own["feature_store"] = FeatureStore(TensorShards(folder / "features"), {}, ram_bytes=1 << 30)
    return own


if __name__ == "__main__":
    answer(main)
