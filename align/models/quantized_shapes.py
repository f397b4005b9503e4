"""bitsandbytes' quantised layers as shapes: what each keeps in memory, without weights to quantise.

Subclasses of bitsandbytes' own, so that PEFT puts its quantised LoRA on them, and with its own matrix
products, so that a prediction sees the same dequantised copies in the backward.
"""

from __future__ import annotations

from typing import Any

import torch
from bitsandbytes.autograd._functions import MatmulLtState, matmul, matmul_4bit
from bitsandbytes.functional import QuantState
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from torch import Tensor, nn

_BLOCK, _NESTED_BLOCK = 64, 256


class FourBitShape(Linear4bit):
    """NF4 with double quantisation: 4 bits a weight, 8 a block of 64 of them, 32 a block of 256 of those."""

    def __init__(self, layer: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        self.compute_dtype, self.stored_dtype = torch.bfloat16, layer.weight.dtype
        count = layer.weight.numel()
        blocks = -(-count // _BLOCK)
        weight: Any = nn.Parameter(_meta((count + 1) // 2, 1, dtype=torch.uint8), requires_grad=False)
        weight.compress_statistics, weight.quant_type = True, "nf4"
        self.weight = weight
        self.register_buffer("absmax", _meta(blocks, dtype=torch.uint8))
        self.register_buffer("nested_absmax", _meta(-(-blocks // _NESTED_BLOCK)))
        self.register_buffer("code", _meta(16))
        self.register_buffer("nested_code", _meta(256))
        self.register_buffer("offset", _meta())

    def forward(self, x: Tensor) -> Tensor:
        """bitsandbytes' product in bfloat16."""
        own: Any = self
        nested = QuantState(own.nested_absmax, code=own.nested_code, blocksize=256, dtype=torch.float32)
        state = QuantState(
            own.absmax,
            shape=torch.Size((self.out_features, self.in_features)),
            code=own.code,
            blocksize=_BLOCK,
            quant_type="nf4",
            dtype=self.stored_dtype,
            offset=own.offset,
            state2=nested,
        )
        bias = None if self.bias is None else self.bias.to(torch.bfloat16)
        product = matmul_4bit(x.to(torch.bfloat16), self.weight, bias=bias, quant_state=state)
        return product.to(x.dtype)


class EightBitShape(Linear8bitLt):
    """LLM.int8(): a byte a weight and a float an output; the columns of outliers are left out."""

    def __init__(self, layer: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        weight: Any = nn.Parameter(_meta(*layer.weight.shape, dtype=torch.int8), requires_grad=False)
        self.weight = weight
        self.register_buffer("scales", _meta(layer.out_features))
        self.state, self.index = MatmulLtState(), None
        self.state.has_fp16_weights = False

    def forward(self, x: Tensor) -> Tensor:
        """bitsandbytes' product."""
        own: Any = self
        self.state.CB, self.state.SCB = self.weight.data, own.scales
        self.state.is_training = self.training
        product: Any = matmul(x, self.weight, bias=self.bias, state=self.state)
        return product


def _meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")
