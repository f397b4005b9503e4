"""What the frozen vision tower makes of an image, computed once: recent images in RAM, the rest on disk.

Off by default, since features are large: 4.7 MB an image for LLaVA-1.5, 8.6 MB for Qwen2.5-VL at 1,200
tokens, in bf16. Right only while nothing before the stored layer trains and nothing in it is random.

A key is the sha256 over the scope (weights of tower and connector, dtype, attention implementation,
processor settings) and the image's pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from align.digest import digest_json

if TYPE_CHECKING:
    from align.training.tensor_shards import TensorShards


class FeatureStore:
    """Vision features by content: an LRU of `ram_bytes` over shards with a size cap of their own.

    Attributes:
        hits, misses: look-ups that found, or did not find, the features.
        ram_bytes_used: size of what the LRU holds.
    """

    def __init__(self, shards: TensorShards, scope: Mapping[str, Any], ram_bytes: int) -> None:
        self._shards = shards
        self._scope = digest_json(dict(scope))
        self._ram_bytes = ram_bytes
        self._recent: OrderedDict[str, dict[str, torch.Tensor]] = OrderedDict()
        self.ram_bytes_used = 0
        self.hits = 0
        self.misses = 0

    def key(self, image: str) -> str:
        """The content key of one image, given by the digest of its pixels."""
        return digest_json([self._scope, image])

    def get(self, key: str) -> dict[str, torch.Tensor] | None:
        """The features of one image on the CPU, by name, or None."""
        if key in self._recent:
            self._recent.move_to_end(key)
            self.hits += 1
            return dict(self._recent[key])
        found = self._shards.get(key)
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        self._remember(key, found)
        return found

    def put(self, key: str, features: Mapping[str, torch.Tensor]) -> None:
        """Keep one image's features; when the disk cap is reached, in RAM alone and while they are recent."""
        copies = {name: tensor.detach().cpu().clone() for name, tensor in features.items()}
        self._shards.put(key, copies)
        self._remember(key, copies)

    def flush(self) -> None:
        """Make everything stored so far durable."""
        self._shards.flush()

    def _remember(self, key: str, features: dict[str, torch.Tensor]) -> None:
        size = _num_bytes(features)
        if size > self._ram_bytes or key in self._recent:
            return
        self._recent[key] = features
        self.ram_bytes_used += size
        while self.ram_bytes_used > self._ram_bytes:
            _, oldest = self._recent.popitem(last=False)
            self.ram_bytes_used -= _num_bytes(oldest)


def _num_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
