"""A model as it would be trained, with shapes and dtypes and no weights: for predictions.

It is built on PyTorch's meta device from `config.json`, quantised and given its adapter there, and then its
parameters become fake tensors, which run every operator's shape rules and none of its arithmetic. Integers
(ids, masks, grids) stay real, because models read shapes out of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from align.errors import AlignError
from align.models.loading import (
    ModelSection,
    first_line,
    is_vision_language,
    not_quantized,
    offer_hidden_states,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def meta_model(section: ModelSection) -> PreTrainedModel:
    """The model on the meta device, every weight frozen, its language model quantised where asked for.

    Raises:
        AlignError: no config, or one that transformers cannot build.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.initialization import no_init_weights

    try:
        config: Any = AutoConfig.from_pretrained(
            section.path, revision=section.revision, local_files_only=section.is_local
        )
        sees = is_vision_language(section)
        kind: Any = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        dtype = config.dtype or torch.float32 if section.dtype == "auto" else getattr(torch, section.dtype)
        with torch.device("meta"), no_init_weights():
            model = kind.from_config(config, dtype=dtype, attn_implementation=section.attn_implementation)
            model.tie_weights()
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise AlignError(
            f"cannot build the model from its config: {first_line(error)}",
            where=section.path,
            fix="give a folder with the checkpoint's config.json: --config DIR",
        ) from error
    model.requires_grad_(False)
    if section.quantization != "none":
        _quantize(model, section.quantization)
    offer_hidden_states(model)
    return model.eval()


def fake(model: nn.Module) -> FakeTensorMode:
    """Give the model fake parameters and buffers in place; returns the mode that makes fake inputs."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in made:  # tied weights stay tied
                made[id(parameter)] = _fake_parameter(mode, parameter)
            module._parameters[name] = made[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is None:
                continue
            if buffer.dtype == torch.int64:  # position ids, which are looked up by value
                module._buffers[name] = torch.arange(buffer.shape[-1]).expand(buffer.shape).contiguous()
            else:
                module._buffers[name] = fake_like(mode, buffer)
    return mode


def fake_like(mode: FakeTensorMode, tensor: Tensor) -> Tensor:
    """A fake tensor of that shape and dtype, on the CPU."""
    with mode:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")


def _fake_parameter(mode: FakeTensorMode, parameter: nn.Parameter) -> nn.Parameter:
    made = nn.Parameter(fake_like(mode, parameter), requires_grad=parameter.requires_grad)
    for name, value in vars(parameter).items():
        setattr(made, name, value)
    return made


def _quantize(model: PreTrainedModel, method: str) -> None:
    """Put shapes of bitsandbytes' layers where `load_model` would have its layers."""
    from transformers.quantizers.quantizers_utils import should_convert_module

    from align.models.quantized_shapes import EightBitShape, FourBitShape

    skipped = not_quantized(model.config.model_type)
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and should_convert_module(name, skipped):
            parent, _, leaf = name.rpartition(".")
            shape = FourBitShape(module) if method == "nf4" else EightBitShape(module)
            setattr(model.get_submodule(parent), leaf, shape)
    named: Any = model
    named.is_quantized = True
    setattr(named, "is_loaded_in_4bit" if method == "nf4" else "is_loaded_in_8bit", True)
