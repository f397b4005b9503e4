"""LoRA that starts with what rounding took from a quantised base.

LoftQ (Li et al., 2023, arXiv 2310.08659) with Q(W) held fixed, its first step: B A scaled is the best
rank-r approximation of W - Q(W), so training starts nearer to the model that the checkpoint is. PEFT's
`replace_lora_weights_loftq` does this on a GPU alone, and leaves the adapter's scaling out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from align.errors import AlignError
from align.progress import say


def start_from_rounding(peft_model: Any, folder: Path) -> float:
    """Fill A `[r, in]` and B `[out, r]` of every adapted, quantised layer; others keep their start of zero.

    Args:
        peft_model: wrapped, with the adapter `default` and PEFT's plain LoRA layers.
        folder: the checkpoint that the base was rounded from.

    Returns:
        The share of the rounding's squared error that the adapter takes in, over all layers.

    Raises:
        AlignError: no adapted layer is quantised.
    """
    import torch
    from peft.tuners.lora import LoraLayer
    from peft.utils.integrations import dequantize_module_weight

    from align.merging.quantized_base import quantized_weights
    from align.models.checkpoint_weights import open_weights

    lost = left = 0.0
    base = peft_model.get_base_model()
    with open_weights(folder) as weights, torch.no_grad():
        stored_transposed = quantized_weights(weights.model, "nf4")
        for name, layer in base.named_modules():
            if not isinstance(layer, LoraLayer) or not hasattr(layer.get_base_layer().weight, "quant_state"):
                continue
            rounded = dequantize_module_weight(layer.get_base_layer()).float()
            original = weights.tensor(f"{name}.weight").to(rounded.device, torch.float32)
            error = (original.T if stored_transposed[f"{name}.weight"] else original) - rounded
            u, s, v = torch.linalg.svd(error, full_matrices=False)
            factors: Any = (layer.lora_A["default"], layer.lora_B["default"])
            a, b = (factor.weight.zero_() for factor in factors)
            rank, root = a.shape[0], (s / layer.scaling["default"]).sqrt()
            kept = min(rank, len(s))
            a[:kept] = root[:kept, None] * v[:kept]
            b[:, :kept] = u[:, :kept] * root[:kept]
            lost += float(s.square().sum())
            left += float(s[rank:].square().sum())
    if not lost:
        raise AlignError(
            "loftq has nothing to make up for: LoRA sits on layers that are not quantised",
            where="lora.components",
            fix="add language, or use lora.init_lora_weights: true",
        )
    share = 1 - left / lost
    say(f"  LoftQ: the adapter starts with {share:.0%} of what rounding took from the base")
    return share
