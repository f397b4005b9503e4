"""Log-probs of the frozen reference, computed once for each content and kept between runs.

The reference of a DPO run doesn't move, so its log-probs of a pair are the same in every epoch, and in
every run of a sweep over beta or the learning rate. They are kept per token: another weighting of the
tokens then needs no forward either.

A key is the sha256 over everything that the numbers depend on: the scope (reference weights, dtypes,
attention implementation, processor settings; see `align.trainers.content`), the ids of prompt and
completions after truncation, and the images' pixels. What has changed in any of them is not found, so
an entry cannot be stale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from align.digest import digest_json

if TYPE_CHECKING:
    from align.training.tensor_shards import TensorShards


class ReferenceStore:
    """Per-token reference log-probs by content.

    Args:
        shards: where they are kept.
        scope: what all entries of this run depend on; JSON-serialisable.

    Attributes:
        hits, misses: look-ups that found, or did not find, all completions of their key.
    """

    def __init__(self, shards: TensorShards, scope: Mapping[str, Any]) -> None:
        self._shards = shards
        self._scope = digest_json(dict(scope))
        self.hits = 0
        self.misses = 0

    def key(
        self, prompt_ids: Sequence[int], completions: Sequence[Sequence[int]], images: Sequence[str]
    ) -> str:
        """The content key of one prompt and its completions.

        Args:
            prompt_ids: token ids as the model reads them, image placeholders included, no padding.
            completions: token ids of chosen and rejected, after truncation.
            images: digests of the pixels, in the prompt's order.
        """
        ids = [list(map(int, completion)) for completion in completions]
        return digest_json([self._scope, list(map(int, prompt_ids)), ids, list(images)])

    def get(self, key: str, lengths: Sequence[int]) -> list[torch.Tensor] | None:
        """Log-probs of each completion, float32 [C], or None when any is missing.

        Args:
            lengths: tokens of each completion; an entry of other lengths is no hit.
        """
        found = self._shards.get(key)
        logps = None if found is None else [found[name] for name in sorted(found)]
        if logps is None or [len(values) for values in logps] != list(lengths):
            self.misses += 1
            return None
        self.hits += 1
        return logps

    def put(self, key: str, logps: Sequence[torch.Tensor]) -> None:
        """Store the log-probs [C] of each completion; values that are not finite are not kept."""
        if all(bool(torch.isfinite(values).all()) for values in logps):
            self._shards.put(key, {str(index): values.float() for index, values in enumerate(logps)})

    def flush(self) -> None:
        """Make everything stored so far durable."""
        self._shards.flush()
