"""Qwen3-VL and Qwen3.5 with experts: Qwen's towers, and four experts of which two see a token.

Files as the hub has them: both families hold a layer's experts in two tensors. Qwen3-VL's are transposed
(`gate_up_proj` [experts, in, 2 x out]), Qwen3.5's are as the class has them, and beside them stand the layers
that guess the next tokens (`mtp.`), which transformers does not load.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessorPil,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from tests.twins.checkpoint import Twin
from tests.twins.llava import PATCH_SIZE, TEXT, token_ids
from tests.twins.templates import QWEN_VL
from tests.twins.tokenizer import build_tokenizer, token_id

_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
_PIXELS = {"shortest_edge": 4 * 16 * 16, "longest_edge": 16 * 16 * 16}
_STEPS: dict[str, Any] = {"patch_size": PATCH_SIZE, "merge_size": 2, "size": _PIXELS}
_TOWER: dict[str, Any] = {
    "depth": 3,
    "hidden_size": 32,
    "out_hidden_size": 64,
    "intermediate_size": 64,
    "num_heads": 2,
    "patch_size": PATCH_SIZE,
    "num_position_embeddings": 64,
}
# No two of the widths are alike, so that a transposed tensor cannot pass for one that is not.
_EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}


def qwen3_vl_moe() -> Twin:
    """Qwen3-VL whose layers have experts alone, all of them softmax attention."""
    tokenizer = build_tokenizer("<|im_end|>", "<|endoftext|>", None, _TOKENS, ["<|im_start|>"])
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6], "mrope_interleaved": True}
    text = {**TEXT, **_EXPERTS, **token_ids(tokenizer), "head_dim": 32, "rope_parameters": rope}
    # Published configs say that the chosen weights sum to 1: vLLM asks, transformers takes it for granted.
    text |= {"tie_word_embeddings": False, "num_hidden_layers": 3, "norm_topk_prob": True}
    tower = {**_TOWER, "deepstack_visual_indexes": [0, 1]}
    config = Qwen3VLMoeConfig(vision_config=tower, text_config=text, **_ids(tokenizer))
    model = Qwen3VLMoeForConditionalGeneration(config)
    return Twin(model, _processor(tokenizer), QWEN_VL.template(), in_file=_transposed)


def qwen3_5_moe() -> Twin:
    """Qwen3.5 with experts and an expert that sees every token, behind a gate of its own."""
    tokenizer = build_tokenizer("<|im_end|>", "<|endoftext|>", None, _TOKENS, ["<|im_start|>"])
    rope = {
        "rope_type": "default",
        "rope_theta": 1e6,
        "mrope_section": [4, 2, 2],
        "mrope_interleaved": True,
        "partial_rotary_factor": 0.25,
    }
    text = {
        **TEXT,
        **_EXPERTS,
        **token_ids(tokenizer),
        "shared_expert_intermediate_size": 40,
        "head_dim": 64,
        "num_hidden_layers": 3,
        "layer_types": ["linear_attention", "linear_attention", "full_attention"],
        "linear_num_key_heads": 1,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 64,  # vLLM's CPU kernel takes 64 and 128
        "linear_value_head_dim": 64,
        "rope_parameters": rope,
    }
    text.pop("intermediate_size")
    config = Qwen3_5MoeConfig(vision_config={**_TOWER, "depth": 2}, text_config=text, **_ids(tokenizer))
    model = Qwen3_5MoeForConditionalGeneration(config)
    _remember(model)
    return Twin(model, _processor(tokenizer), QWEN_VL.template(), in_file=_with_next_tokens)


def _ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {f"{name}_id": token_id(tokenizer, token) for name, token in _TOKENS.items()}


def _processor(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLProcessor:
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(**_STEPS),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**_STEPS),
    )


def _transposed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As Qwen3-VL-30B-A3B's files: [experts, in, out]."""
    return {
        name: tensor.transpose(1, 2).contiguous() if ".mlp.experts." in name else tensor
        for name, tensor in tensors.items()
    }


def _with_next_tokens(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As Qwen3.5-35B-A3B's files: a layer's experts in two tensors, which `save_pretrained` of a model made
    from a config writes apart, and some of the tensors of `mtp`."""
    fused = {name: tensor for name, tensor in tensors.items() if ".mlp.experts." not in name}
    apart = {name for name in tensors if ".mlp.experts." in name}
    for layer in sorted({name.partition(".mlp.experts.")[0] for name in apart}):

        def stacked(leaf: str, before: str = f"{layer}.mlp.experts") -> torch.Tensor:
            count = sum(name.startswith(f"{before}.") and name.endswith(f".{leaf}.weight") for name in apart)
            return torch.stack([tensors[f"{before}.{expert}.{leaf}.weight"] for expert in range(count)])

        both = torch.cat([stacked("gate_proj"), stacked("up_proj")], dim=1)
        fused[f"{layer}.mlp.experts.gate_up_proj"] = both
        fused[f"{layer}.mlp.experts.down_proj"] = stacked("down_proj")
    return fused | {"mtp.fc.weight": torch.ones(64, 128), "mtp.norm.weight": torch.zeros(64)}


def _remember(model: torch.nn.Module) -> None:
    """Decays that keep the state for tens of tokens; those that the class draws forget in one or two."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("A_log"):
                parameter.copy_(torch.linspace(0.01, 0.2, len(parameter)).log())
