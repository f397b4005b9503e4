"""A real trainer and the prediction of its step, side by side: same model, method and row."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from align.models.loading import ModelSection, load_model, load_processor
from align.planning.memory_plan import MemoryPlan, Request, Stage, predict
from align.planning.planned_batch import RowShape
from align.tuning.lora import LoraSection, lora_config

Method = Literal["lora", "nf4", "int8", "full"]

_QUESTION = "What is in this image? Tell me all about it."
_SIZE = (96, 128)


class MemoryRun:
    """Two rows a batch, three steps.

    Args:
        path: of the checkpoint.
        shares: whether rows share their prefix.
        lora: of the recipe's section, beside its rank.
        settings: of TRL's config, by its names.
    """

    def __init__(
        self,
        stage: Stage,
        path: Path,
        method: Method,
        scratch: Path,
        shares: bool = True,
        lora: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.stage: Stage = stage
        self.scratch, self.shares = scratch, shares
        quantization: Any = method if method in ("nf4", "int8") else "none"
        dtype = "float32" if quantization == "none" else "bfloat16"
        self.model = ModelSection(path=str(path), dtype=dtype, quantization=quantization)
        self.lora = None if method == "full" else LoraSection.model_validate({"r": 8, **(lora or {})})
        self.answers = (8,) if stage == "sft" else (6, 8)  # sentences
        self.settings = {
            "per_device_train_batch_size": 2,
            "max_steps": 3,
            "bf16": False,
            "gradient_checkpointing": False,
            "learning_rate": 1e-5,
            "router_aux_loss_coef": 0.0,
            **settings,
        }
        self.processor: Any = load_processor(self.model)

    def trainer(self) -> Any:
        """Ours, as the stages build it."""
        from datasets import Dataset
        from transformers import PrinterCallback
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.sft_config import SFTConfig

        from align.progress import quiet_libraries
        from align.trainers.dpo_trainer import SharedPrefixDPOTrainer
        from align.trainers.sft_trainer import SharedImageSFTTrainer
        from align.trainers.sharing import SharingConfig

        quiet_libraries()
        own: dict[str, Any] = {"assistant_only_loss": True} if self.stage == "sft" else {}
        kind, config = (
            (SharedImageSFTTrainer, SFTConfig) if self.stage == "sft" else (SharedPrefixDPOTrainer, DPOConfig)
        )
        arguments: Any = config(
            output_dir=str(self.scratch),
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            max_length=2048,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            **own,
            **self.settings,
        )
        model = load_model(self.model)
        if self.lora is None:
            model.requires_grad_(True)
        trainer: Any = kind(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list([self._row(number) for number in range(4)]),
            processing_class=self.processor,
            sharing=SharingConfig(mode="auto" if self.shares else "off"),
            peft_config=None if self.lora is None else lora_config(self.lora, model),
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def predicted(self, trainer: Any) -> MemoryPlan:
        """For rows as long as the trainer's first batch has them."""
        request = Request(
            stage=self.stage,
            model=self.model,
            lora=self.lora,
            trainer=self.settings,
            row=self._shape(trainer),
            sharing=trainer.shares,
            device="cpu",
        )
        return predict(request, self.processor.image_processor)

    def _shape(self, trainer: Any) -> RowShape:
        from align.inputs.budget import TokenBudget

        batch = trainer.data_collator([trainer.train_dataset[number] for number in range(2)])
        image = TokenBudget(self.processor).image(_SIZE)
        if self.stage == "sft":
            scored = (batch["labels"] != -100).sum(1)[:1]
        else:
            scored = batch["completion_mask"].sum(1)[::2]
        lengths = batch["attention_mask"].sum(1)
        answers = tuple(int(number) for number in scored)
        prompt = int(lengths.max()) - image - max(answers)
        return RowShape(prompt, answers, (_SIZE,))

    def _row(self, number: int) -> dict[str, Any]:
        pixels = np.random.default_rng(number).integers(0, 255, (*_SIZE, 3), dtype=np.uint8)
        picture, asked = [Image.fromarray(pixels)], {"role": "user", "content": _QUESTION}
        told = [{"role": "assistant", "content": "A cat sits. " * count} for count in self.answers]
        if self.stage == "sft":
            return {"images": picture, "messages": [asked, told[0]]}
        return {"images": picture, "prompt": [asked], "chosen": told[:1], "rejected": told[1:]}
