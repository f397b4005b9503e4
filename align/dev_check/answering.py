"""The policy's greedy answers in the middle of its training, which then goes on as if nobody had asked."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from align.dev_check.asked import Asked
from align.dev_check.kept_features import KeptFeatures, Room
from align.errors import AlignError
from align.inputs.chat import render, tokenizer_of
from align.inputs.images import open_image, resolve_image
from align.models.thinking import spoken_answer

T = TypeVar("T")

KEPT_BYTES = 2 << 30
"""Inputs and vision features up to so much are kept between checks; beyond that they are made anew."""


class Answerer:
    """Asks the same questions at every check.

    Args:
        asked: what is asked.
        processor: or the tokenizer of a text-only model.
        root: folder of the pictures.
        lengths: tokens of each question, its pictures' included.
        batch_size: questions answered at a time: of one limit on the answer, and of about one length.

    Attributes:
        batches: places in `asked` of each batch, the same at every check.
        features: of the pictures, kept while the vision tower is frozen; None encodes them at each check.
        room: for what is kept between checks.
    """

    def __init__(
        self,
        asked: Sequence[Asked],
        processor: Any,
        root: Path | None,
        lengths: Sequence[int],
        batch_size: int,
    ) -> None:
        self._asked, self._processor, self._root = asked, processor, root
        self.batches = _batches(asked, lengths, batch_size)
        self.room = Room(KEPT_BYTES)
        self.features: KeptFeatures | None = KeptFeatures(self.room)
        self._kept: dict[int, dict[str, torch.Tensor]] = {}

    def answers(self, model: Any, accelerator: Any) -> list[str]:
        """One answer a question, in order: greedy, cut at the question's limit, special tokens left out.

        Each process answers its share of the batches and is given the others' answers; all must call.

        Args:
            model: as it trains, its adapter on; of its state nothing is changed.
            accelerator: the trainer's, for the arithmetic that it trains in.
        """
        found: dict[int, str] = {}
        with undisturbed(model), torch.no_grad(), accelerator.autocast():
            for number in own_share(len(self.batches), accelerator):
                texts = self._answered(number, model)
                found |= dict(zip(self.batches[number], texts, strict=True))
        found = gathered(found, accelerator)
        return [found[place] for place in range(len(self._asked))]

    def _answered(self, number: int, model: Any) -> list[str]:
        batch = self._inputs(number, model)
        longest = self._asked[self.batches[number][0]].max_new_tokens
        with self.features.used(model, number) if self.features is not None else nullcontext():
            ids = model.generate(**batch, **_greedy(model, self._processor, longest))
        new = ids[:, batch["input_ids"].shape[1] :]
        return [spoken_answer(tokenizer_of(self._processor), row) for row in new.tolist()]

    def _inputs(self, number: int, model: Any) -> dict[str, torch.Tensor]:
        batch = self._kept.get(number)
        if batch is None:
            batch = self._collated([self._asked[place] for place in self.batches[number]])
            if self.room.take(sum(tensor.nbytes for tensor in batch.values())):
                self._kept[number] = batch
        device = next(model.parameters()).device
        moved = {name: tensor.to(device) for name, tensor in batch.items()}
        dtype = _float_dtype(model)
        return {name: t.to(dtype) if t.is_floating_point() else t for name, t in moved.items()}

    def _collated(self, items: Sequence[Asked]) -> dict[str, torch.Tensor]:
        """Inputs of the model, `[B, L]` padded on the left, so that every answer begins at L."""
        texts = [
            render(self._processor, list(item.messages), len(item.images), add_generation_prompt=True)
            for item in items
        ]
        seen: dict[str, Any] = {}
        if self._root is not None and any(item.images for item in items):
            files = ([resolve_image(self._root, name) for name in item.images] for item in items)
            seen["images"] = [[open_image(file) for file in own] for own in files]
        tokenizer = tokenizer_of(self._processor)
        padding_side, tokenizer.padding_side = tokenizer.padding_side, "left"
        try:
            batch = self._processor(
                text=texts, padding=True, return_tensors="pt", add_special_tokens=False, **seen
            )
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            raise AlignError(
                f"the processor refuses a batch of {len(items)} questions: {error}",
                where="dev.batch_size",
                fix="set dev.batch_size: 1",
            ) from error
        finally:
            tokenizer.padding_side = padding_side
        return dict(batch)


def own_share(number: int, accelerator: Any) -> range:
    """Which of so many batches are this process's."""
    return range(accelerator.process_index, number, accelerator.num_processes)


def gathered(own: dict[int, T], accelerator: Any) -> dict[int, T]:
    """What all processes found, in every one of them."""
    if accelerator.num_processes == 1:
        return own
    from accelerate.utils import gather_object

    return dict(gather_object(list(own.items())))


def _batches(asked: Sequence[Asked], lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Places in `asked`: one length limit a batch, as many pictures each, and questions of alike length, so
    that little is padded."""
    kinds: dict[tuple[int, int], list[int]] = {}
    for place, item in enumerate(asked):
        kinds.setdefault((item.max_new_tokens, len(item.images)), []).append(place)
    return [
        sorted(places, key=lambda place: lengths[place])[start : start + batch_size]
        for _, places in sorted(kinds.items())
        for start in range(0, len(places), batch_size)
    ]


def _greedy(model: Any, processor: Any, longest: int) -> dict[str, Any]:
    """Greedy decoding as `align generate` asks of the server: nothing of the checkpoint's generation config
    but its ends of turn."""
    from transformers import GenerationConfig

    tokenizer = tokenizer_of(processor)
    own = getattr(model.generation_config, "eos_token_id", None)
    ends = set(own) if isinstance(own, list) else {own}
    ends = sorted(end for end in ends | {tokenizer.eos_token_id} if end is not None)
    pad = tokenizer.pad_token_id
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=longest,
        use_cache=True,
        eos_token_id=ends,
        pad_token_id=ends[0] if pad is None else pad,
    )
    return {"generation_config": config}


def _float_dtype(model: Any) -> torch.dtype:
    """What pictures are given in: the dtype of the base's own weights, an adapter's may be float32."""
    frozen = (p for p in model.parameters() if not p.requires_grad and p.is_floating_point())
    return next(frozen, next(model.parameters())).dtype


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """The model in evaluation mode; afterwards everything that training reads is as it was.

    Modules' modes (gradient checkpointing and dropout follow them), every random generator, and the offsets
    that Qwen's models keep of the last prompt they read.
    """
    modes = [(module, module.training) for module in model.modules()]
    offsets = [(m, m.rope_deltas) for m, _ in modes if hasattr(m, "rope_deltas")]
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices):
            model.eval()
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for module, offset in offsets:
            module.rope_deltas = offset
        random.setstate(python)
        np.random.set_state(numpy)
