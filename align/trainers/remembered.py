"""Stores in the trainer's way: a reference that is asked once a pair, and features computed once an image.

Keys come from what travels in the batch: the row's own ids, and the digests that the collator put into
it. Taken from a collator's or dataset's state they would be another batch's, since the loader prefetches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from align.trainers.image_features import ImageFeatures, by_image, joined
from align.trainers.shared_row import SharedRow, array_places


class LogProbLookup(Protocol):
    """Reference log-probs by content."""

    def key(
        self, prompt_ids: Sequence[int], completions: Sequence[Sequence[int]], images: Sequence[str]
    ) -> str:
        """The content key of a prompt with its completions."""
        ...

    def get(self, key: str, lengths: Sequence[int]) -> list[Tensor] | None:
        """Log-probs of each completion, float32 `[C]`, or None."""
        ...

    def put(self, key: str, logps: Sequence[Tensor]) -> None:
        """Keep the log-probs of each completion."""
        ...


class LogProbStore(LogProbLookup, Protocol):
    """What keeps reference log-probs; `align.trainers.reference_store.ReferenceStore` is one."""

    hits: int
    misses: int

    def flush(self) -> None:
        """Make what is kept durable."""
        ...


class ImageStore(Protocol):
    """What keeps vision features; `align.trainers.feature_store.FeatureStore` is one."""

    hits: int
    misses: int

    def key(self, image: str) -> str:
        """The content key of an image, given its pixels' digest."""
        ...

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The image's features by name, or None."""
        ...

    def put(self, key: str, features: Mapping[str, Tensor]) -> None:
        """Keep an image's features."""
        ...

    def flush(self) -> None:
        """Make what is kept durable."""
        ...


class RememberedReference:
    """Stands for the reference model in TRL's `compute_ref_log_probs`, and asks it only what is new.

    Args:
        model: the reference: a model of its own, or the policy, whose adapter TRL switches off.
        store: where log-probs are kept, one entry a pair.
    """

    def __init__(self, model: Any, store: LogProbLookup) -> None:
        self._model = model
        self._store = store

    def __call__(self, *, shared_row: SharedRow, labels: Tensor, **inputs: Any) -> _LogProbs:
        """Per-token log-probs `[2B, L-1]` of the batch; one missing pair computes the batch."""
        keys = [self._key(shared_row, number) for number in range(len(shared_row.spans))]
        counts = torch.bincount(shared_row.sequence, minlength=shared_row.num_sequences).tolist()
        lengths = list(zip(counts[::2], counts[1::2], strict=True))
        found = [self._store.get(key, own) for key, own in zip(keys, lengths, strict=True)]
        places = array_places(shared_row)
        if all(logps is not None for logps in found):
            kept = torch.cat([values for logps in found for values in logps or ()]).to(labels.device)
            empty = kept.new_zeros(labels.shape[0], labels.shape[1] - 1)
            return _LogProbs(empty.index_put(places, kept))
        computed = self._model(**inputs, labels=labels, shared_row=shared_row).log_probs
        scored = computed[places].float().split(counts)
        for number, key in enumerate(keys):
            if found[number] is None:
                self._store.put(key, scored[2 * number : 2 * number + 2])
        return _LogProbs(computed)

    def _key(self, row: SharedRow, number: int) -> str:
        span = row.spans[number]
        ids = row.input_ids[0, span.start : span.stop].tolist()
        split = span.prefix + span.branches[0]
        completions = [ids[span.prefix : split], ids[split:]]
        return self._store.key(ids[: span.prefix], completions, row.images[number] if row.images else ())


class _LogProbs:
    """The one field of a fused forward that TRL reads of a reference."""

    def __init__(self, log_probs: Tensor) -> None:
        self.log_probs = log_probs


def remembered_features(
    store: ImageStore, images: Sequence[str], compute: Callable[[], ImageFeatures], like: Tensor
) -> ImageFeatures | None:
    """Features of the images from the store, or computed for all and kept.

    Args:
        images: the pixels' digests, in the batch's order.
        compute: makes the features of all of them.
        like: where the features go: device and dtype.

    Returns:
        None where the features cannot be taken apart by image.
    """
    keys = [store.key(image) for image in images]
    found = [store.get(key) for key in keys]
    if all(kept is not None for kept in found):
        return joined([kept for kept in found if kept is not None], like)
    computed = compute()
    parts = by_image(computed, len(images))
    if parts is None:
        return None
    for key, kept, own in zip(keys, found, parts, strict=True):
        if kept is None:
            store.put(key, own)
    return computed
