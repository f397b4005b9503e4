"""Vision features of the dev pictures, computed at the first check and used again at the later ones.

A check asks the same batches of pictures each time. While nothing in front of the decoder trains, the vision
encoder gives the same numbers each time too, and its output for a batch is kept as it was: the answers are
those of a check that encodes anew, bit for bit. Where tower or connector train, nothing is kept, and neither
where a family generates without asking `get_image_features` of its backbone (BLIP-2).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import send_to_device

from align.trainers.dpo_trainer import unwrapped
from align.trainers.image_features import ImageFeatures, image_features
from align.trainers.shared_forward import vision_trains


class Room:
    """Bytes of memory that what is kept between checks may still take.

    Attributes:
        free: bytes left.
    """

    def __init__(self, free: int) -> None:
        self.free = free

    def take(self, size: int) -> bool:
        """Whether there is room for so many bytes, which are then taken."""
        if size > self.free:
            return False
        self.free -= size
        return True


class KeptFeatures:
    """Outputs of a model's vision encoder, by batch.

    Args:
        room: shared with what else is kept.

    Attributes:
        encoded: how often the encoder was asked.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self._kept: dict[Hashable, ImageFeatures] = {}
        self.encoded = 0

    @contextmanager
    def used(self, model: Any, batch: Hashable) -> Iterator[None]:
        """Within it the model's encoder gives the features kept of that batch, or computes and keeps them.

        Args:
            model: wrapped by PEFT or not.
            batch: names the batch; it must hold the same pictures in the same order each time.
        """
        inner = unwrapped(model)
        backbone = inner.base_model
        encode = getattr(backbone, "get_image_features", None)
        if encode is None or vision_trains(inner):
            yield
            return
        own = vars(backbone).get("get_image_features")  # set by somebody on this very object
        backbone.get_image_features = self._remembering(encode, batch, next(inner.parameters()).device)
        try:
            yield
        finally:
            del backbone.get_image_features
            if own is not None:
                backbone.get_image_features = own

    def _remembering(self, encode: Callable[..., Any], batch: Hashable, device: Any) -> Callable[..., Any]:
        calls = iter(range(1 << 30))

        @functools.wraps(encode)  # `generate` reads the signature
        def remembered(*args: Any, **kwargs: Any) -> Any:
            key = (batch, next(calls))
            kept = self._kept.get(key)
            if kept is not None:
                return ImageFeatures(
                    send_to_device(kept.pooler_output, device),
                    send_to_device(kept.deepstack_features, device),
                )
            self.encoded += 1
            output = encode(*args, **kwargs)
            if getattr(output, "pooler_output", None) is not None:
                found = image_features(output)
                both = (found.pooler_output, found.deepstack_features)
                if self._room.take(_num_bytes(both)):
                    self._kept[key] = ImageFeatures(*(send_to_device(one, "cpu") for one in both))
            return output

        return remembered


def _num_bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    return sum(map(_num_bytes, value)) if isinstance(value, (list, tuple)) else 0
