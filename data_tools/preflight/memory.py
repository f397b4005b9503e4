"""What a training step will need at its peak, estimated from the checkpoint's files and the longest row.

Activations by Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models"
(arXiv:2205.05198): a layer keeps s b h (34 + 5 a s / h) bytes in 16 bits (equation 2), of which fused
attention (SDPA, Flash) never stores the second term, and 2 s b h with full recomputation, when only one layer
at a time has all of its activations. Logits count 2 bytes an entry, and 8 more where the loss reads them in
float32 with their gradient. Left out: adapter, optimizer, the vision tower's passing activations,
fragmentation.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from align.errors import AlignError

_LAYER_BYTES, _RECOMPUTED_BYTES, _LOGIT_BYTES = 34, 2, 10


@dataclass(frozen=True)
class Shape:
    """What the estimate needs to know of a model.

    Attributes:
        weights: bytes of its weight files; 0 when the folder holds a processor only.
    """

    hidden: int
    layers: int
    vocabulary: int
    weights: int


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the peak of a step of `sequences` sequences of `tokens` tokens each."""

    sequences: int
    tokens: int
    weights: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.activations + self.logits

    def to_json(self) -> dict[str, int]:
        """For the report."""
        return {**asdict(self), "total": self.total}


def model_shape(checkpoint: Path) -> Shape | None:
    """From `config.json` and the sizes of the weight files; None without a config (a processor's folder).

    Raises:
        AlignError: a config that is not JSON.
    """
    path = checkpoint / "config.json"
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AlignError(f"not JSON: {error}", where=str(path)) from error
    text: dict[str, Any] = config.get("text_config") or config
    found = [text.get(name, config.get(name)) for name in ("hidden_size", "num_hidden_layers", "vocab_size")]
    if not all(isinstance(value, int) for value in found):
        return None
    weights = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    return Shape(*found, weights)  # type: ignore[arg-type]


def estimate(shape: Shape, tokens: int, sequences: int, recompute: bool) -> MemoryEstimate:
    """For a batch as long as its longest row; `recompute` is gradient checkpointing."""
    unit = tokens * sequences * shape.hidden
    kept = _RECOMPUTED_BYTES * shape.layers + _LAYER_BYTES if recompute else _LAYER_BYTES * shape.layers
    logits = _LOGIT_BYTES * tokens * sequences * shape.vocabulary
    return MemoryEstimate(sequences, tokens, shape.weights, unit * kept, logits)
