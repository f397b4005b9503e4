"""Several adapters on one model in transformers: switched, and mixed in one batch, each row as on its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.align.adapter_folders import load, make_adapter
from tests.twins import Twins

BASE = "__base__"  # PEFT's name for a row without an adapter


def _batch(folder: Path, rows: int) -> dict[str, Any]:
    """`rows` questions of one length, each about an image of its own."""
    from transformers import AutoProcessor

    processor: Any = AutoProcessor.from_pretrained(folder)
    content = [{"type": "image"}, {"type": "text", "text": "What is this?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 255, (rows, 56, 56, 3), dtype=np.uint8)
    images = [[Image.fromarray(array)] for array in pixels]
    return dict(processor(text=[text] * rows, images=images, return_tensors="pt"))


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_a_mixed_batch_is_its_rows_apart(twins: Twins, name: str, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    paths = {key: make_adapter(twins(name), tmp_path / key, seed=seed) for seed, key in enumerate("ab")}
    model = PeftModel.from_pretrained(load(twins(name)), str(paths["a"]), adapter_name="a")
    model.load_adapter(str(paths["b"]), adapter_name="b")
    model.eval()
    batch = _batch(twins(name), 3)
    apart = {}
    with torch.no_grad():
        for key in "ab":
            model.set_adapter(key)
            apart[key] = model(**batch).logits
        with model.disable_adapter():
            apart[BASE] = model(**batch).logits
        order = ["b", BASE, "a"]
        mixed = model(**batch, adapter_names=order).logits
    for row, key in enumerate(order):
        torch.testing.assert_close(mixed[row], apart[key][row], atol=1e-5, rtol=1e-4)
        for other in set(apart) - {key}:
            assert (mixed[row] - apart[other][row]).abs().max() > 1e-3
    alone = PeftModel.from_pretrained(load(twins(name)), str(paths["b"])).eval()
    with torch.no_grad():
        torch.testing.assert_close(apart["b"], alone(**batch).logits, atol=1e-5, rtol=1e-4)
