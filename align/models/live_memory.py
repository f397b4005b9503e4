"""Bytes of tensors alive, by what they are for, counted at every operator: of a real step or of a fake one.

    memory = LiveMemory(model)
    with memory:
        loss = model(**batch).loss
        loss.backward()
    memory.peak, memory.parts_at_peak

Every operator's outputs pass through `__torch_dispatch__`; a storage counts from then until Python and
autograd have let go of it, once, whatever views look at it. On a CPU the backward runs in the same thread, so
it is counted too, recomputation included. What a kernel allocates and frees inside itself is not seen, nor
what an allocator rounds up or keeps; `torch.cuda.max_memory_allocated` sees the first and not the second.
The same accounting as `torch.distributed._tools.mem_tracker`, which is private and hooks every module.

Under `torch._subclasses.FakeTensorMode` the same operators have shapes and no data: then this predicts.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Part = Literal["weights", "gradients", "optimizer", "activations"]
PARTS: tuple[Part, ...] = ("weights", "gradients", "optimizer", "activations")

_aten: Any = torch.ops.aten
_INDEXING = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default)


class LiveMemory(TorchDispatchMode):
    """Counts while it is entered.

    Args:
        model: its parameters and buffers are `weights`; a gradient becomes `gradients` when it reaches its
            parameter. Whatever else operators make is `activations`, until `mark` says otherwise.

    Attributes:
        live: bytes now.
        peak: most bytes at once since the start or the last `restart`.
        parts_at_peak: those bytes by part.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.parts_at_peak: dict[Part, int] = dict.fromkeys(PARTS, 0)
        self._parts: Counter[Part] = Counter()
        self._known: dict[int, tuple[int, Part, weakref.ref[Any]]] = {}
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(self._mark_gradient)
            for parameter in model.parameters()
            if parameter.requires_grad
        ]
        for tensor in weight_tensors(model):
            self.mark(tensor, "weights")

    def mark(self, tensor: Tensor, part: Part) -> None:
        """Count the tensor's storage under `part`, from now on if it was another."""
        key = tensor.untyped_storage()._cdata
        if key in self._known:
            size, before, reference = self._known[key]
            self._parts[before] -= size
            self._parts[part] += size
            self._known[key] = (size, part, reference)
        else:
            self._add(tensor, part)

    def restart(self) -> None:
        """Forget the peak; what is alive stays counted."""
        self.peak = 0
        self._note_peak()

    def close(self) -> None:
        """Take the hooks off the model's parameters."""
        for hook in self._hooks:
            hook.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and count what it made."""
        known, value = _value_of(func, args)
        output = value if known else func(*_with_places(func, args), **(kwargs or {}))
        if not func._schema.is_mutable:  # a fake `out=` comes back with a storage of its own
            for leaf in tree_leaves(output):
                if isinstance(leaf, Tensor):
                    self._add(leaf, "activations")
        return output

    def _mark_gradient(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self.mark(parameter.grad, "gradients")

    def _add(self, tensor: Tensor, part: Part) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known[key] = (size, part, weakref.ref(storage, lambda _: self._drop(key)))
        self._parts[part] += size
        self.live += size
        if self.live > self.peak:
            self._note_peak()

    def _drop(self, key: int) -> None:
        size, part, _ = self._known.pop(key)
        self._parts[part] -= size
        self.live -= size

    def _note_peak(self) -> None:
        self.peak = self.live
        self.parts_at_peak = {part: self._parts[part] for part in PARTS}


def weight_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and the scales that bitsandbytes keeps beside quantised weights."""
    yield from model.buffers()
    for parameter in model.parameters():
        yield parameter
        state = getattr(parameter, "quant_state", None)
        for part in (state, getattr(state, "state2", None)):
            yield from (value for value in vars(part or object).values() if isinstance(value, Tensor))
        if isinstance(scales := getattr(parameter, "SCB", None), Tensor):
            yield scales


def _value_of(func: Any, args: Any) -> tuple[bool, Any]:
    """A number for `.item()` of a fake tensor, which has none: checks ask for it, memory does not care."""
    if func is _aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
        return True, torch.ones((), dtype=args[0].dtype).item()
    return False, None


def _with_places(func: Any, args: Any) -> Any:
    """Boolean masks in `tensor[mask]` as indices where something is fake, so that shapes are known.

    Real masks say which; one computed from pixels (Idefics leaves out padding images) is taken to keep all.
    """
    if func not in _INDEXING or not any(isinstance(one, FakeTensor) for one in (args[0], *args[1])):
        return args
    places: list[Tensor | None] = []
    for index in args[1]:
        if index is None or index.dtype != torch.bool:
            places.append(index)
        else:
            mask = torch.ones(index.shape, dtype=torch.bool) if isinstance(index, FakeTensor) else index
            places.extend(mask.nonzero(as_tuple=True))
    return (args[0], places, *args[2:])
