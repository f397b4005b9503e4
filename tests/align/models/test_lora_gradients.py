"""Every adapted matrix of every component learns, with gradient checkpointing on, in every family.

Other projects had vision adapters whose gradients stayed zero under checkpointing: the tower's input needs
none, so that reentrant checkpoints cut its graph, and nothing said so.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from align import sft
from align.config.recipe import validate
from tests.align.models.test_families_matrix import Rows, pictured
from tests.twins import IMAGE_TWINS, LEAVE_OUT, Twins

__all__ = ["pictured"]
# Its connector is one bare matrix, in no linear layer.
NO_CONNECTOR = ("gemma3",)


@pytest.mark.parametrize("name", IMAGE_TWINS)
def test_every_b_moves_in_two_steps(name: str, twins: Twins, pictured: Rows, tmp_path: Path) -> None:
    components = ["vision", "language", *(["connector"] if name not in NO_CONNECTOR else [])]
    left = LEAVE_OUT.get(name, [])
    adapted = [one for one in left if ".experts." in one]
    rest = [one for one in left if one not in adapted]
    experts = {"target_parameters": adapted, "leave_out": rest} if left else {}
    values = {
        "run_dir": tmp_path,
        "model": {"path": str(twins(name)), "dtype": "float32"},
        "data": {"path": pictured.sft, "image_root": pictured.images},
        "lora": {"r": 2, "lora_alpha": 4, "components": components, **experts},
        "trainer": {
            "max_steps": 2,
            "per_device_train_batch_size": 6,
            "learning_rate": 1e-2,
            "bf16": False,
            "gradient_checkpointing": True,
        },
    }
    folder = sft.run(validate(sft.Recipe, values, where="test"))
    weights = load_file(folder.final / "adapter" / "adapter_model.safetensors")
    learnt = {key: bool(weight.any()) for key, weight in weights.items() if "lora_B" in key}
    assert learnt and all(learnt.values()), [key for key, moved in learnt.items() if not moved]
