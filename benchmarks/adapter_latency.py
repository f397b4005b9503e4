"""Latency of answers with the adapter on against merged weights, in transformers on this machine.

    python -m benchmarks.adapter_latency                             # the embedded base, LoRA of rank 32
    python -m benchmarks.adapter_latency --model DIR --adapter runs/x/sft/adapter --tokens 64

Greedy, one picture a prompt, exactly --tokens tokens an answer. The two are timed in turns, so that a busy
machine slows both. Without --adapter a random LoRA stands in: time does not depend on its values.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from pathlib import Path
from typing import Any

_BASE = Path(__file__).resolve().parent.parent / "assets" / "base"


def main() -> None:
    """Time both and print medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=_BASE, metavar="DIR")
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="default: random LoRA of rank --rank")
    parser.add_argument("--rank", type=int, default=32, metavar="N")
    parser.add_argument("--tokens", type=int, default=32, metavar="N")
    parser.add_argument("--rounds", type=int, default=9, metavar="N")
    given = parser.parse_args()
    import torch

    adapted, processor = _adapted(given)
    merged = copy.deepcopy(adapted).merge_and_unload()
    batch = _batch(processor, adapted)
    seconds: dict[str, list[float]] = {"adapter on": [], "merged": []}
    with torch.no_grad():
        for number in range(given.rounds + 1):
            for name, model in (("adapter on", adapted), ("merged", merged)):
                began = time.perf_counter()
                model.generate(
                    **batch, do_sample=False, min_new_tokens=given.tokens, max_new_tokens=given.tokens
                )
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - began)
    for name, found in seconds.items():
        middle = statistics.median(found)
        spread = f"{min(found):.3f} to {max(found):.3f}"
        print(
            f"{name:12} {middle:.3f} s an answer of {given.tokens} tokens ({spread}), {given.rounds} rounds"
        )
    ratio = statistics.median(a / m for a, m in zip(*seconds.values(), strict=True))
    print(f"adapter on takes {ratio:.2f} times as long as merged")


def _adapted(given: argparse.Namespace) -> tuple[Any, Any]:
    import torch
    from peft import PeftModel, get_peft_model

    from align.models.loading import ModelSection, load_model, load_processor
    from align.tuning.lora import LoraSection, lora_config

    section = ModelSection(path=str(given.model), dtype="auto" if torch.cuda.is_available() else "float32")
    model: Any = load_model(section)
    if given.adapter is not None:
        return PeftModel.from_pretrained(model, given.adapter).eval(), load_processor(section)
    config = lora_config(LoraSection.model_validate({"r": given.rank, "init_lora_weights": False}), model)
    return get_peft_model(model, config).eval(), load_processor(section)


def _batch(processor: Any, model: Any) -> Any:
    from PIL import Image

    from align.inputs.chat import render
    from align.rows.schema import Message

    turns = [Message(role="user", content="Describe the image.")]
    text = render(processor, turns, 1, add_generation_prompt=True)
    picture = Image.effect_noise((128, 96), 60).convert("RGB")
    made = processor(text=[text], images=[[picture]], return_tensors="pt", add_special_tokens=False)
    return made.to(model.device)


if __name__ == "__main__":
    main()
