"""What `test_two_processes` launches: train the twin in FOLDER, write the losses to OUT.

python -m tests.align.trainers.launched_dpo FOLDER OUT BATCH
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from peft import LoraConfig
from transformers import AutoModelForImageTextToText, AutoProcessor

from align.run.processes import end_processes
from align.trainers.dpo_trainer import SharedPrefixDPOTrainer
from tests.align.trainers.trl_comparison import train, vision_pairs

# The tower trains too: a process whose batch has no image then has parameters without gradients.
TARGETS = r".*(language_model|vision_tower).*\.(q_proj|v_proj)"


def main() -> None:
    folder, out, batch = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    pairs = vision_pairs(7, seed=4, images=None)
    record, trainer = train(
        SharedPrefixDPOTrainer,
        lambda: AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").requires_grad_(False),
        AutoProcessor.from_pretrained(folder),
        pairs,
        LoraConfig(r=4, target_modules=TARGETS),
        out.with_suffix(".run"),
        per_device_train_batch_size=batch,
        num_train_epochs=2,
    )
    assert trainer.shares
    if os.environ.get("RANK", "0") == "0":
        rows: list[Any] = list(pairs)
        images = [len(row["images"]) for row in rows]
        world = trainer.accelerator.num_processes
        out.write_text(json.dumps({"losses": record.losses, "images": images, "processes": world}))


if __name__ == "__main__":
    main()
    end_processes()
