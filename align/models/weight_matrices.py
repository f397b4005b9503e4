"""The weight matrices of a model: which component each is in, and what it does there.

Read from the built model and not from a list of names. A linear layer mixes tokens (attention, linear
attention, state space, short convolution) or belongs to the rest of its layer, the MLP's side; every other
matrix (a router, experts in one tensor of three dimensions, the packed weights of PyTorch's own attention) is
`other`. Embeddings and convolutions are none, nor are vectors that are stored as a matrix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from align.models.family import Component, Modules

if TYPE_CHECKING:
    from torch import nn

Kind = Literal["attention", "mlp", "other"]

# What mixes tokens: softmax and linear attention, state-space layers, short convolutions.
_MIXES = re.compile(r"attn|attention|mixer|mamba|ssm|conv", re.IGNORECASE)
_FEEDS_FORWARD = re.compile(
    r"mlp|ffn|feed_?forward|relu_?dense|intermediate|expert|moe|^fc\d$", re.IGNORECASE
)
# Nemotron H calls every layer's inside `mixer`, be it attention, Mamba or an MLP.
_OF_AN_MLP = re.compile(r"^(?:up_proj|down_proj|gate_up_proj|fc\d)$")
# What decides which expert a token goes to.
_ROUTES = re.compile(r"router|^gate$|experts?_gate$", re.IGNORECASE)
# Learnt vectors stored as a matrix: they are looked up or added, and multiply nothing.
_LOOKED_UP = re.compile(
    r"embed|patch|pos(?:ition)?_|rel_pos|token|probe|latent|queries|bias|table", re.IGNORECASE
)


def weight_matrices(model: Any, modules: Modules, component: Component) -> Iterator[tuple[str, Kind]]:
    """(name, kind) of each matrix in a component.

    Names are of the linear layer, or of the parameter where no linear layer holds it.

    Args:
        model: built, with or without weights, not wrapped.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    named: Mapping[str, nn.Module] = dict(model.named_modules())
    for name, module in named.items():
        if modules.component_of(name) != component or module is head or name.endswith(".lm_head"):
            continue
        if is_linear(module):
            packed = _is_packed(named.get(name.rpartition(".")[0]))
            inside = _inside(name, modules, component)
            # A linear layer called an embedding is named and not passed over; where it is all there is
            # (a model without a tower), it is what LoRA goes to.
            looked_up = name != modules.vision and component != "connector" and _LOOKED_UP.search(inside)
            yield name, "other" if packed or looked_up else _kind(inside)
        else:
            for key in _bare_matrices(name, module):
                yield key, "other"


def is_linear(module: Any) -> bool:
    """Whether PEFT places LoRA on it as on a linear layer; bitsandbytes' layers are of PyTorch's class."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def _is_packed(module: Any) -> bool:
    """PyTorch's own attention reads its output layer's weight beside the layer: LoRA there is not seen."""
    from torch import nn

    return isinstance(module, nn.MultiheadAttention)


def _bare_matrices(name: str, module: Any) -> Iterator[str]:
    """Parameters of two dimensions or more that a module holds itself: routers, experts in one tensor."""
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    if isinstance(module, nn.Embedding | _ConvNd):
        return
    for leaf, parameter in module.named_parameters(recurse=False):
        full = f"{name}.{leaf}"
        if sum(size > 1 for size in parameter.shape) > 1 and not _LOOKED_UP.search(_last_parts(full)):
            yield full.removesuffix(".weight")


def _last_parts(name: str) -> str:
    return ".".join(name.split(".")[-2:])


def _kind(name: str) -> Kind:
    """Of a linear layer by its name within the component: the nearest module that tells decides.

    What no module tells belongs to the rest of a layer, the MLP's side.
    """
    *around, leaf = name.split(".")
    if _ROUTES.search(leaf) or any(_ROUTES.search(part) for part in around[-1:]):
        return "other"
    for part in reversed(around):
        if part == "mixer" and _OF_AN_MLP.match(leaf):
            return "mlp"
        if _MIXES.search(part):
            return "attention"
        if _FEEDS_FORWARD.search(part):
            return "mlp"
    return "mlp"


def _inside(name: str, modules: Modules, component: Component) -> str:
    """The name without the component's prefix."""
    own = {
        "vision": (modules.vision, modules.tower),
        "language": (modules.language,),
        "connector": modules.connector,
    }
    for prefix in own.get(component, ()):
        if prefix and is_below(name, prefix):
            return name[len(prefix) + 1 :] or name.rpartition(".")[2]
    return name


def is_below(name: str, prefix: str) -> bool:
    """Whether a module is the named one, or inside it."""
    return name == prefix or name.startswith(prefix + ".")
