"""One timed SFT run, in a process of its own: prints one line of JSON.

    python -m benchmarks.sft_variant '{"variant": "ours: shared images", "model": ..., ...}'

The first step warms up and is not timed. Peak memory is the resident set's maximum above its size after
the imports, so it holds weights, optimiser and activations, and not the libraries.
"""

from __future__ import annotations

import random
import tempfile
import time
from typing import Any

from benchmarks.timed_process import answer, peak_bytes, use_compact_head

VARIANTS: dict[str, dict[str, Any]] = {
    "TRL, default": {"trl": True, "gradient_checkpointing": True},
    "TRL, no checkpointing": {"trl": True},
    "TRL, tuned: compact head": {"trl": True, "compact": True},
    "ours: shared images": {},
    "ours: and checkpointing": {"gradient_checkpointing": True},
}
_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ ' ' + m['content'][0]['text'] + ' </s>' }}{% endgeneration %}{% else %}"
    "{% for p in m['content'] %}{{ '<image>' if p['type'] == 'image' else ' ' + p['text'] }}{% endfor %}"
    "{% endif %}{% endfor %}"
)


def main(order: dict[str, Any]) -> dict[str, Any]:
    """Train as ordered; the record has seconds of wall and CPU, losses, peak memory."""
    import torch
    from peft import LoraConfig
    from transformers import AutoProcessor, LlavaForConditionalGeneration, TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from align.trainers.image_sampler import SharedImageSampler
    from align.trainers.sft_trainer import SharedImageSFTTrainer
    from align.trainers.sharing import SharingConfig

    class InOurOrder(SFTTrainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return SharedImageSampler(keys, order["batch"], seed=self.args.seed)

    variant = VARIANTS[order["variant"]]
    if variant.get("compact"):
        use_compact_head()
    dataset, keys = rows(order)
    processor = AutoProcessor.from_pretrained(order["model"])
    processor.chat_template = _TEMPLATE
    imported = peak_bytes()
    record: dict[str, Any] = {"losses": []}

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 1:
                self.started = time.perf_counter(), time.process_time()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            record["wall"] = time.perf_counter() - self.started[0]
            record["cpu"] = time.process_time() - self.started[1]

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                record["losses"].append(logs["loss"])

    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=variant.get("gradient_checkpointing", False),
            assistant_only_loss=True,
            num_train_epochs=1,
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
            trainer: Any = InOurOrder(**common)
        else:  # the check of the first batch against TRL's way is not timed
            sharing = SharingConfig(self_check=False)
            trainer = SharedImageSFTTrainer(**common, sharing=sharing, image_keys=keys)
            if not trainer.shares:
                raise SystemExit(f"nothing is shared: {trainer.obstacles}")
        trainer.train()
    record["memory"] = peak_bytes() - imported
    return record


def rows(order: dict[str, Any], seed: int = 0) -> tuple[Any, list[int]]:
    """A dataset of `steps + 1` batches, `questions` rows an image, and each row's image number.

    A question has about 12 words, an answer about C tokens, each a fifth more or less.
    """
    from datasets import Dataset
    from PIL import Image

    from benchmarks.synthetic_vlm import SPECIAL

    generator = random.Random(seed)

    def words(about: int) -> str:
        number = max(1, round(about * generator.uniform(0.8, 1.2)))
        return " ".join(f"w{generator.randrange(order['V'] - len(SPECIAL))}" for _ in range(number))

    found, keys = [], []
    picture = None
    for number in range(order["batch"] * (order["steps"] + 1)):
        if number % order["questions"] == 0:
            picture = Image.frombytes("RGB", (48, 48), generator.randbytes(48 * 48 * 3))
        turns = [("user", words(12)), ("assistant", words(order["C"] - 1))]  # and the end of turn
        messages = [{"role": role, "content": text} for role, text in turns]
        found.append({"images": [picture], "messages": messages})
        keys.append(number // order["questions"])
    return Dataset.from_list(found), keys


if __name__ == "__main__":
    answer(main)
