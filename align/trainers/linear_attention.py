"""Linear attention over shared rows: the prefix once, then every branch from the state it leaves.

A gated delta net (Yang et al., 2024, arXiv 2412.06464) reads a sequence in order. It keeps a state
`[H, D_k, D_v]` and the last columns that its short convolution looks back on, and has no mask that could hide
one branch from the next. So a row is not one pass here: each group's prefix is, and its branches are a padded
batch of their own that begins with the prefix's state. Gradients flow back through the state into the prefix.

`share_states(decoder)` gives the layers this. The arithmetic stays transformers' (or its kernels'), which
reads and writes states by the cache it is handed; `SharedState` is such a cache, whose tensors stay in the
graph.
"""

from __future__ import annotations

import inspect
import types
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from align.trainers.shared_row import SharedRow, Span

LINEAR = "linear_attention"
_UNDER_A_MASK = {"full_attention", "sliding_attention", "chunked_attention"}
# A single token would take the step of generation, whose kernels have no backward pass.
_SHORTEST = 2


def keeps_a_state(model: Any) -> bool:
    """Whether tokens read others by a state, under no mask: linear attention, state spaces, convolutions."""
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    return model._is_stateful or not kinds <= _UNDER_A_MASK


def linear_layers(decoder: nn.Module) -> list[nn.Module]:
    """The linear-attention modules of a decoder, in order."""
    layers: Any = getattr(decoder, "layers", ())
    found = (getattr(layer, "linear_attn", None) for layer in layers)
    return [module for module in found if isinstance(module, nn.Module)]


def takes_states(decoder: nn.Module) -> bool:
    """Whether all layers that the config calls linear attention read and write their state by a cache."""
    config: Any = decoder.config
    kinds: list[str] = list(getattr(config, "layer_types", None) or ())
    modules = linear_layers(decoder)
    given = (inspect.signature(type(module).forward).parameters for module in modules)
    return kinds.count(LINEAR) == len(modules) and all("cache_params" in names for names in given)


def share_states(decoder: nn.Module) -> None:
    """Let the linear-attention layers understand the keyword `shared_row`; without it nothing changes.

    Args:
        decoder: for which `takes_states`; adapters may be in place or come later.
    """
    for module in linear_layers(decoder):
        layer = cast(Any, module)
        # Attributes, not a closure: a deep copy of the layer then calls itself and not the original.
        layer.separate_forward = layer.forward
        layer.forward = types.MethodType(_forward, layer)


@dataclass
class _Layer:
    """One layer's part of a cache, named as transformers names it.

    Attributes:
        conv_states: by 0 `[B, C, kernel - 1]`, the last columns before the convolution; None at first.
        recurrent_states: by 0 `[B, H, D_k, D_v]`; None at first.
        record_past: makes the layer ask `update_conv_state` and not write into the columns in place.
    """

    conv_states: dict[int, Tensor | None]
    recurrent_states: dict[int, Tensor | None]
    record_past: bool = True


class SharedState:
    """What transformers' linear-attention layers ask of a cache, for one layer and one group.

    It refers to itself nowhere: a circle would keep the graph of a step alive until the garbage is collected.

    Attributes:
        layers: by the layer's index, where the layer looks for its states.
    """

    def __init__(self, layer_idx: int, columns: Tensor | None = None, state: Tensor | None = None) -> None:
        self.layers = {layer_idx: _Layer({0: columns}, {0: state})}

    def branched(self, count: int) -> SharedState:
        """The same for `count` branches that begin here, B being 1."""
        ((layer_idx, layer),) = self.layers.items()
        columns, state = layer.conv_states[0], layer.recurrent_states[0]
        if columns is None or state is None:
            return SharedState(layer_idx)
        return SharedState(layer_idx, columns.expand(count, -1, -1), state.expand(count, -1, -1, -1))

    def has_previous_state(self, layer_idx: int, state_idx: int = 0) -> bool:
        """Whether tokens were read before."""
        return self.layers[layer_idx].recurrent_states[state_idx] is not None

    def update_conv_state(self, columns: Tensor, layer_idx: int, conv_kernel_size: int) -> Tensor:
        """Keep the last `kernel - 1` columns; give back those before and the new, `[B, C, n]`."""
        kept, before = conv_kernel_size - 1, self.layers[layer_idx].conv_states[0]
        whole = columns if before is None else torch.cat([before, columns], dim=2)
        last = pad(whole, (max(0, kept - whole.shape[2]), 0))[:, :, -kept:]
        self.layers[layer_idx].conv_states[0] = last
        return whole

    def update_recurrent_state(self, state: Tensor, layer_idx: int) -> None:
        """Keep the state that the tokens leave."""
        self.layers[layer_idx].recurrent_states[0] = state


def _forward(
    self: Any,
    hidden_states: Tensor,
    cache_params: Any = None,
    attention_mask: Tensor | None = None,
    shared_row: SharedRow | None = None,
    **kwargs: Any,
) -> Tensor:
    """A layer's forward, `[1, N, H]` to `[1, N, H]` of a row's N tokens."""
    if shared_row is None:
        return self.separate_forward(
            hidden_states, cache_params=cache_params, attention_mask=attention_mask, **kwargs
        )
    lengths = [span.length for span in shared_row.spans]
    groups = zip(shared_row.spans, hidden_states.split(lengths, dim=1), strict=True)
    return torch.cat([piece for span, own in groups for piece in _group(self, own, span, kwargs)], dim=1)


def _group(layer: Any, hidden_states: Tensor, span: Span, kwargs: dict[str, Any]) -> list[Tensor]:
    """Prefix, then branches of one group; `[1, n, H]` each. Padding stands behind, where no token looks."""
    prefix, *branches = hidden_states.split([span.prefix, *span.branches], dim=1)
    state = SharedState(layer.layer_idx)
    pieces = [layer.separate_forward(prefix, cache_params=state, **kwargs)] if span.prefix else []
    longest = max(_SHORTEST, *span.branches)
    rows = torch.cat([pad(own, (0, 0, 0, longest - own.shape[1])) for own in branches])
    read = layer.separate_forward(rows, cache_params=state.branched(len(branches)), **kwargs)
    return [*pieces, *(own[None, :length] for own, length in zip(read, span.branches, strict=True))]
