"""BLIP-2 offers the hidden states that its own head turns into its logits, and that TRL trains on."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from trl.trainer.utils import add_fused_lm_head

from align.models.loading import ModelSection, load_model, load_processor
from tests.twins import Twins


def test_blip2_hidden_states_are_those_of_its_logits(twins: Twins) -> None:
    section = ModelSection(path=str(twins("blip-2")), dtype="float32")
    processor: Any = load_processor(section)
    model: Any = load_model(section)
    batch = processor(text=["A small red ball."], images=[Image.new("RGB", (32, 32))], return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits
        hidden = model.base_model(**batch).last_hidden_state
        torch.testing.assert_close(model.get_output_embeddings()(hidden), logits)
        add_fused_lm_head(model)
        fused = model(**batch, labels=batch["input_ids"], fused_lm_head=True).log_probs
    wanted = logits[:, :-1].log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    torch.testing.assert_close(fused, wanted, atol=1e-5, rtol=1e-4)
