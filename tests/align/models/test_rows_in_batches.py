"""A row alone is the row in a padded batch, on either side, in every family: nobody reads a neighbour.

Linear attention and short convolutions carry a state past the padding, and token types padded on the other
side than the ids lose a picture without a word; both would show here.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from align.inputs.chat import render
from align.models.loading import ModelSection, load_model, load_processor
from align.rows.messages import Message
from tests.twins import IMAGE_TWINS, VARIANT_TWINS, Twins

TURNS = (
    ("What is this?", "A cat."),
    ("How many dogs do you see in the picture of the kitchen?", "There are three on the grass."),
)
SIZES = ((40, 50), (60, 30))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", [*IMAGE_TWINS, *VARIANT_TWINS])
def test_a_row_does_not_see_its_neighbour(name: str, side: Literal["left", "right"], twins: Twins) -> None:
    section = ModelSection(path=str(twins(name)), dtype="float32")
    processor: Any = load_processor(section)
    model: Any = load_model(section)
    draw = np.random.default_rng(1)
    pictures = [[Image.fromarray(draw.integers(0, 255, (*size, 3), dtype=np.uint8))] for size in SIZES]
    texts = [
        render(
            processor,
            [Message(role="user", content=question), Message(role="assistant", content=answer)],
            1,
            add_generation_prompt=False,
        )
        for question, answer in TURNS
    ]
    together = logits(model, processor, texts, pictures, side)
    for number, found in enumerate(together):
        (alone,) = logits(model, processor, texts[number : number + 1], pictures[number : number + 1], side)
        assert len(alone) == len(found) and float((alone - found).abs().max()) < 1e-4


def logits(model: Any, processor: Any, texts: list[str], pictures: Any, side: str) -> list[torch.Tensor]:
    """`[tokens, vocabulary]` of each row, padding left out."""
    batch = processor(
        text=texts,
        images=pictures,
        return_tensors="pt",
        padding=True,
        padding_side=side,
        add_special_tokens=False,
    )
    batch.pop("labels", None)
    if model.config.get_text_config().model_type == "ministral3":
        # It scales queries by their place, so that padding before a row must not count, as in `generate`.
        batch["position_ids"] = (batch["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    with torch.no_grad():
        found = model(**batch).logits
    return [row[mask.bool()] for row, mask in zip(found, batch["attention_mask"], strict=True)]
