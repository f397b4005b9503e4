"""Adapters on a model without weights: PEFT's own arithmetic, a layer at a time.

PEFT puts the adapters' layers on the skeleton of a checkpoint; the base's weight of one layer is set when it
is asked for, merged or unmerged, and dropped again. Whatever method PEFT can merge is merged as PEFT does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from align.errors import AlignError
from align.models.adapter_folder import ADAPTER_WEIGHTS, Adapter, changes_base, check_mergeable, module_of

if TYPE_CHECKING:
    import torch

    from align.models.checkpoint_weights import CheckpointWeights


class AdapterLayers:
    """The layers of one or several adapters on a checkpoint's skeleton; made by `put_on`.

    Attributes:
        peft_model: PEFT's model, its base without weights.
        modules: name of each adapted module -> PEFT's layer there; of a module with several adapted
            parameters (LoRA's `target_parameters`) the outermost of the layers that PEFT nests.
        whole: parameters that an adapter replaces as a whole (`modules_to_save`, biases) -> their values.
    """

    def __init__(self, peft_model: Any, whole: dict[str, torch.Tensor]) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        base = peft_model.get_base_model()
        self.peft_model = peft_model
        self.modules = {
            name: layer
            for name, layer in base.named_modules()
            if isinstance(layer, BaseTunerLayer) and not name.endswith(".base_layer")
        }
        self.whole = whole

    def adapted(self, module: str, leaves: Iterable[str]) -> list[str]:
        """Those of the module's parameters that an adapter adds to, whatever it adds; of a layer that
        replaces a module the weight."""
        wrappers = _parameter_layers(self.modules.get(module))
        names = {layer.parameter_name for layer in wrappers} if wrappers else {"weight"}
        return [leaf for leaf in leaves if leaf in names] if module in self.modules else []

    def apart(self, module: str, leaves: Sequence[str]) -> list[list[str]]:
        """The module's parameters in groups that must be merged together: all of a layer's, but each tensor
        of experts alone, which are the largest that there are."""
        alone = bool(_parameter_layers(self.modules.get(module)))
        return [[leaf] for leaf in leaves] if alone else [list(leaves)]

    def merged(self, module: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The module's parameters with the adapter in them, float32.

        Args:
            tensors: leaf name (`weight`, `bias`) -> the base's tensor.

        Raises:
            AlignError: PEFT cannot merge this layer.
        """
        with _weights(self.modules[module], tensors) as base:
            for layer in self._layers(module, tensors):
                try:
                    layer.merge(safe_merge=True)
                except (ValueError, RuntimeError, NotImplementedError) as error:
                    raise AlignError(f"PEFT cannot merge {module}: {error}") from error
                layer.merged_adapters.clear()
            return {leaf: getattr(base, leaf).data for leaf in tensors}

    def unmerged(self, module: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The module's parameters with the adapter taken out of them, float32."""
        with _weights(self.modules[module], tensors) as base:
            for layer in self._layers(module, tensors):
                layer.merged_adapters.extend(layer.active_adapters)
                layer.unmerge()
            return {leaf: getattr(base, leaf).data for leaf in tensors}

    def _layers(self, module: str, leaves: Iterable[str]) -> list[Any]:
        """PEFT's layers that change these of the module's parameters."""
        wrappers = _parameter_layers(self.modules[module])
        return [one for one in wrappers if one.parameter_name in leaves] or (
            [] if wrappers else [self.modules[module]]
        )


def put_on(weights: CheckpointWeights, adapters: Mapping[str, Adapter]) -> AdapterLayers:
    """The adapters' layers on the skeleton of a checkpoint, every tensor of their files in place.

    Raises:
        AlignError: a method that cannot be merged, tensors that fit no module of the checkpoint, or
            modules without their tensors.
    """
    from peft import PeftModel

    for adapter in adapters.values():
        check_mergeable(adapter)
        _fill(weights, adapter)
    wrapped: Any = weights.model
    for name, adapter in adapters.items():
        arguments: dict[str, Any] = {"adapter_name": name, "torch_device": "cpu"}
        if isinstance(wrapped, PeftModel):
            wrapped.load_adapter(str(adapter.path), **arguments)
        else:
            wrapped = PeftModel.from_pretrained(wrapped, str(adapter.path), **arguments)
    whole: dict[str, torch.Tensor] = {}
    for name, adapter in adapters.items():
        _check_all_applied(wrapped, name, adapter)
        whole |= _whole_parameters(weights, adapter)
    return AdapterLayers(wrapped.eval(), whole)


def _parameter_layers(layer: Any) -> list[Any]:
    """PEFT's nested layers around single parameters of a module; empty where one replaces the module."""
    from peft.tuners.lora import ParamWrapper

    found = []
    while isinstance(layer, ParamWrapper):
        found.append(layer)
        layer = layer.base_layer
    return found


def _whole_parameters(weights: CheckpointWeights, adapter: Adapter) -> dict[str, torch.Tensor]:
    from safetensors import safe_open

    found = {}
    with safe_open(str(adapter.path / ADAPTER_WEIGHTS), framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            parameter = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
            if parameter in weights.keys:
                found[parameter] = file.get_tensor(name)
    return found


def _check_all_applied(wrapped: Any, name: str, adapter: Adapter) -> None:
    from peft import get_peft_model_state_dict

    wanted = set(adapter.shapes())
    state = get_peft_model_state_dict(wrapped, adapter_name=name, save_embedding_layers=False)
    lost, missing = sorted(wanted - set(state)), sorted(set(state) - wanted)
    lost = [key for key in lost if ".base_layer." not in key]
    for tensors, what in ((lost, "fit no module"), (missing, "are missing")):
        if tensors:
            raise AlignError(
                f"{len(tensors)} adapter tensors {what}: {tensors[:2]}",
                where=str(adapter.path),
                fix="the adapter belongs to another model, or is damaged",
            )


def _fill(weights: CheckpointWeights, adapter: Adapter) -> None:
    """Give the adapted modules something that PEFT can put its layers on: one zero, seen as a whole matrix;
    and their real weights where the initialisation takes its part out of them."""
    import torch

    for module in sorted({module_of(name) for name in adapter.shapes()} - {""}):
        try:
            owner = weights.model.get_submodule(module)
        except AttributeError as error:
            raise AlignError(
                f"the adapter's tensors fit no module of the checkpoint: {module}",
                where=str(adapter.path),
                fix="name the checkpoint that the adapter was trained on",
            ) from error
        for leaf, parameter in list(owner.named_parameters(recurse=False)):
            if changes_base(adapter):
                value = weights.tensor(f"{module}.{leaf}").float()
            else:
                value = torch.zeros(()).expand(parameter.shape)
            setattr(owner, leaf, torch.nn.Parameter(value, requires_grad=False))


@contextmanager
def _weights(layer: Any, tensors: Mapping[str, torch.Tensor]) -> Iterator[Any]:
    """PEFT's layer over these tensors in float32, for the length of the block; yields the base layer.

    A layer whose initialisation took a part out of its weights (`_fill`) keeps what is left there.
    """
    import torch

    base = layer.get_base_layer()
    kept = {leaf: getattr(base, leaf) for leaf in tensors}
    for leaf, tensor in tensors.items():
        given = kept[leaf].data if _is_whole(kept[leaf]) else tensor
        setattr(base, leaf, torch.nn.Parameter(given.float().clone(), requires_grad=False))
    try:
        with torch.no_grad():
            yield base
    finally:
        for leaf, parameter in kept.items():
            setattr(base, leaf, parameter)


def _is_whole(parameter: torch.Tensor) -> bool:
    """A weight with numbers of its own: not `meta`, and not one zero seen many times."""
    return parameter.device.type != "meta" and any(parameter.stride())
