"""Imports libraries one by one and tells what happened; `align doctor` runs it in processes of their own.

`python -m align.doctor.probe torch trl` prints a line for each, `align-probe: {json}`, as soon as it is
known, so that a library which kills the process or hangs is told by the line that is missing.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

MARK = "align-probe: "
# What is imported stands in for what the stages import: the parts that break first.
IMPORTS: Mapping[str, tuple[str, ...]] = {
    "transformers": ("AutoProcessor", "AutoModelForImageTextToText"),
    "trl": ("SFTTrainer", "DPOTrainer"),
    "peft": ("LoraConfig", "get_peft_model"),
    "datasets": ("Dataset",),
}


def main() -> int:
    """Probe the libraries named on the command line."""
    for name in sys.argv[1:]:
        start = time.monotonic()
        try:
            facts = _probe(name)
        except BaseException as error:  # a library may raise anything, SystemExit included
            text = str(error).strip().splitlines() or [""]
            facts = {"error": f"{type(error).__name__}: {text[0]}"[:300]}
        result = {"name": name, "seconds": round(time.monotonic() - start, 1), **facts}
        print(MARK + json.dumps(result), flush=True)
    return 0


def _probe(name: str) -> dict[str, Any]:
    module = importlib.import_module(name)
    for attribute in IMPORTS.get(name, ()):
        getattr(module, attribute)
    more = _MORE.get(name)
    return {"version": str(getattr(module, "__version__", "")), **(more() if more else {})}


def _torch() -> dict[str, Any]:
    import torch

    gpus = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        gpu = torch.cuda.get_device_properties(index)
        bf16 = gpu.major >= 8
        gpus.append({"name": gpu.name, "bytes": gpu.total_memory, "bf16": bf16})
    # A tiny product shows that the arithmetic library loads and the processor has its instructions.
    product = torch.ones(4, 4, dtype=torch.bfloat16) @ torch.ones(4, 4, dtype=torch.bfloat16)
    return {
        "build": "cpu" if torch.version.cuda is None and torch.version.hip is None else "gpu",
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "bf16_right": bool((product == 4).all()),
        "bf16_fast": _flags() & {"amx_bf16", "avx512_bf16"} != set(),
        "simd": torch.backends.cpu.get_cpu_capability(),
    }


def _torchvision() -> dict[str, Any]:
    import torchvision

    from align.doctor.torchvision_ops import is_active

    return {"compiled_ops": torchvision.extension._has_ops(), "repair": is_active()}


def _vllm() -> dict[str, Any]:
    from vllm.platforms import current_platform

    importlib.import_module("vllm.entrypoints.openai.api_server")
    return {"device": current_platform.device_type}


def _flags() -> set[str]:
    """The processor's feature flags; empty where Linux's /proc/cpuinfo is not there."""
    try:
        with open("/proc/cpuinfo") as file:
            return next((set(line.split()) for line in file if line.startswith("flags")), set())
    except OSError:
        return set()


_MORE: Mapping[str, Callable[[], dict[str, Any]]] = {
    "torch": _torch,
    "torchvision": _torchvision,
    "vllm": _vllm,
}


if __name__ == "__main__":
    sys.exit(main())
