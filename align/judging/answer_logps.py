"""Log-probs of whole answers under a checkpoint: one forward an answer, no training machinery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align.errors import AlignError
from align.inputs.chat import render
from align.rows.schema import Message


def answer_logp(
    processor: Any, model: Any, prompt: Sequence[Message], answer: Sequence[Message], pictures: list[Any]
) -> tuple[float, int]:
    """Sum of the answer's token log-probs in nats, its end of turn included, and how many tokens.

    Args:
        pictures: RGB images of the prompt, in order; empty for none.

    Raises:
        AlignError: the prompt's tokens do not begin those of prompt and answer.
    """
    import torch

    start = render(processor, prompt, len(pictures), add_generation_prompt=True)
    whole = render(processor, [*prompt, *answer], len(pictures), add_generation_prompt=False)
    ids = [
        processor(text=[text], images=pictures or None, return_tensors="pt", add_special_tokens=False)
        for text in (start, whole)
    ]
    length = ids[0]["input_ids"].shape[1]
    if not torch.equal(ids[1]["input_ids"][:, :length], ids[0]["input_ids"]):
        raise AlignError(
            "the prompt's tokens do not begin the whole text's",
            fix="the chat template or the tokenizer joins prompt and answer: such a checkpoint cannot score "
            "answers",
        )
    inputs = {name: value.to(model.device) for name, value in ids[1].items()}
    with torch.no_grad():
        logits = model(**inputs).logits[0, length - 1 : -1].float()  # [answer tokens, V]
    targets = inputs["input_ids"][0, length:]
    logps = logits.log_softmax(-1).gather(1, targets[:, None])
    return float(logps.sum()), len(targets)
