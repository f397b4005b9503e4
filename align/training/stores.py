"""The stores of a training stage: their recipe sections, and where on disk they are.

Both belong to a run directory, or to a folder that several runs name, and outlive the stage: what they
hold is found by content, so that a sweep computes it once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from align.config.recipe import Strict

if TYPE_CHECKING:
    from align.trainers.feature_store import FeatureStore
    from align.trainers.reference_store import ReferenceStore

REFERENCE_STORE = "reference_store"
FEATURE_STORE = "feature_store"
_GIB = 1 << 30


class ReferenceStoreSection(Strict):
    """Log-probs of the frozen reference, computed once for each content and kept.

    What several runs share differs from what each would compute by rounding alone: the order of pairs in
    a batch is not part of an entry's key.
    """

    enabled: bool = Field(default=False, description="off computes the reference in every step")
    folder: Path | None = Field(
        default=None, description="shared by the runs that name it; null is run_dir/reference_store"
    )

    def open(self, run_dir: Path, model: Any, processor: Any, autocast: str) -> ReferenceStore:
        """The store for this model, before an adapter is put on it."""
        from align.trainers.content import model_scope, reference_weights
        from align.trainers.reference_store import ReferenceStore
        from align.training.tensor_shards import TensorShards

        scope = model_scope(model, reference_weights(model), processor, autocast)
        return ReferenceStore(TensorShards(self.folder or run_dir / REFERENCE_STORE), scope)


class FeatureStoreSection(Strict):
    """Features of the frozen vision tower, several MB an image; worth it where the tower is slow."""

    folder: Path | None = Field(
        default=None, description="shared by the runs that name it; null is run_dir/feature_store"
    )
    disk_gib: float = Field(default=50.0, ge=0, description="a fuller folder takes no further images")
    ram_gib: float = Field(default=4.0, ge=0, description="of the most recently used images")

    def open(self, run_dir: Path, model: Any, processor: Any, autocast: str) -> FeatureStore:
        """The store for this model's tower and connector, before an adapter is put on them."""
        from align.trainers.content import model_scope, vision_weights
        from align.trainers.feature_store import FeatureStore
        from align.training.tensor_shards import TensorShards

        scope = model_scope(model, vision_weights(model), processor, autocast)
        shards = TensorShards(self.folder or run_dir / FEATURE_STORE, max_bytes=int(self.disk_gib * _GIB))
        return FeatureStore(shards, scope, ram_bytes=int(self.ram_gib * _GIB))
