"""The decoder's last layer, computed only where it is read.

The head reads the last layer where a completion token is predicted. Earlier tokens need the layer for
their keys and values alone: their queries, attention, output projection and MLP are read by nobody.
`trim_last_layer` spares them. Losses and gradients are what they were: no gradient came from there.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from align.trainers.shared_row import SharedRow


def trim_last_layer(decoder: nn.Module) -> bool:
    """Let the last layer skip the tokens whose outputs nobody reads, in passes over a `SharedRow`.

    Adapters must be in place: they are skipped with the projections they belong to. Passes without a
    row are left alone. With checkpointing the layer's recomputation skips the same tokens.

    Args:
        decoder: with `layers`, each of which hands its keyword `shared_row` on to its attention.

    Returns:
        Whether it does; not where the layer is built in a way that is not known, or mixes experts,
        whose balance depends on the tokens they are given.
    """
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return False
    layer: Any = layers[-1]
    attention, mlp = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
    found = (getattr(attention, "q_proj", None), getattr(attention, "o_proj", None), mlp)
    parts = [part for part in found if isinstance(part, nn.Module)]
    if len(parts) < len(found) or hasattr(mlp, "experts"):
        return False
    read = _TokensRead()
    layer.register_forward_pre_hook(read.enter, with_kwargs=True)
    layer.register_forward_hook(read.leave, always_call=True)
    for part in parts:
        part.register_forward_pre_hook(read.take)
        part.register_forward_hook(read.put)
    setattr(attention, _READS_TAIL, True)
    return True


def reads_tail(attention: nn.Module) -> bool:
    """Whether only the queries of `SharedRow.tail` are read of this attention layer."""
    return getattr(attention, _READS_TAIL, False)


_READS_TAIL = "align_reads_tail"


class _TokensRead:
    """Hooks that share one pass's row; their owner is copied with the model that they are hooked to."""

    def __init__(self) -> None:
        self.row: SharedRow | None = None

    def enter(self, _: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
        self.row = kwargs.get("shared_row")

    def leave(self, *_: Any) -> None:
        self.row = None

    def take(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """`[1, N, H]` to the `[1, n, H]` that are read."""
        if self.row is None:
            return None
        return inputs[0].index_select(1, self.row.tail()), *inputs[1:]

    def put(self, _: nn.Module, __: Any, output: Tensor) -> Tensor | None:
        """`[1, n, H]` back to their places among N, zeros between."""
        if self.row is None:
            return None
        whole = output.new_zeros(output.shape[0], len(self.row), output.shape[2])
        return whole.index_copy(1, self.row.tail(), output)
