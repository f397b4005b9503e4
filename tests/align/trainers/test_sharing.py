"""Each condition of sharing on small real models: it holds, or is named in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)
from trl.trainer.dpo_config import DPOConfig

from align.trainers.sharing import obstacles
from tests.twins import Twins

SMALL = {"vocab_size": 32, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}


def llama(**changes: Any) -> Any:
    return LlamaForCausalLM(LlamaConfig(**SMALL, intermediate_size=16, **changes))


def failed(model: Any, tmp_path: Path, **options: Any) -> str:
    arguments = DPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    for name, value in options.items():  # some options want a GPU or a package to be set at all
        setattr(arguments, name, value)
    return "; ".join(obstacles(model, arguments))


def test_nothing_fails_for_a_plain_decoder_with_lora(tmp_path: Path) -> None:
    assert failed(get_peft_model(llama(), LoraConfig(target_modules=["q_proj"])), tmp_path) == ""


def test_each_condition_is_named(tmp_path: Path) -> None:
    linear = llama()
    linear.config.layer_types = ["linear_attention", "full_attention"]
    assert "linear_attention" in failed(linear, tmp_path)
    routed = llama()
    routed.config.num_experts = 4
    assert "experts are balanced" in failed(routed, tmp_path)
    assert "experts" not in failed(routed, tmp_path, router_aux_loss_coef=0.0)
    both_ways = llama()
    both_ways.config.use_bidirectional_attention = True
    assert "both directions" in failed(both_ways, tmp_path)
    assert "attention dropout is 0.1" in failed(llama(attention_dropout=0.1), tmp_path)
    assert "attention is 'eager'" in failed(llama(attn_implementation="eager"), tmp_path)
    virtual = get_peft_model(llama(), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    assert "virtual tokens" in failed(virtual, tmp_path)
    dropped = get_peft_model(llama(), LoraConfig(target_modules=["q_proj"], lora_dropout=0.1))
    assert "dropout is on" in failed(dropped, tmp_path)
    assert "keep_end" in failed(llama(), tmp_path, truncation_mode="keep_end")
    assert failed(llama(), tmp_path, truncation_mode="keep_end", max_length=None) == ""
    assert "use_liger_kernel" in failed(llama(), tmp_path, use_liger_kernel=True)
    assert "torch_compile" in failed(llama(), tmp_path, torch_compile=True)
    assert "noise" in failed(llama(), tmp_path, neftune_noise_alpha=5.0)
    encoder = T5Config(vocab_size=32, d_model=16, d_ff=16, d_kv=8, num_heads=2, num_layers=1)
    assert "encoder-decoder" in failed(T5ForConditionalGeneration(encoder), tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "paligemma", "blip-2"])
def test_a_family_that_was_not_compared_is_refused(twins: Twins, name: str, tmp_path: Path) -> None:
    kind: Any = AutoModelForCausalLM if name == "gpt2" else AutoModelForImageTextToText
    model = kind.from_pretrained(twins(name))
    assert "has not been compared" in failed(model, tmp_path)
