"""LoRA adapters on a vLLM server, unmerged beside their base: which ones it can serve, and how it is told.

What vLLM does with an adapter that it cannot apply differs, and only some of it is an error. Read in the
source of 0.32 and tried on the embedded LLaVA, on a CPU:

- Tensors of vision tower and connector are loaded and never used: the server answers as if they were not
  there, unless `--enable-tower-connector-lora`, experimental there, is on. With it Qwen2-VL, Qwen2.5-VL,
  Qwen3-VL and Idefics 3 answer as their merged checkpoints do, token for token. Gemma 3's engine stops (an
  einsum over 512 and 128), InternVL's refuses the names of the tower, LLaVA-NeXT's answers are others, and
  LLaVA's tower is called otherwise inside vLLM (`vision_tower.vision_model`), so that the first request ended
  the engine (room for an image's 64 features, where the tower computes 65).
- DoRA, whole parameters (`modules_to_save`, biases) and initialisations that change the base are refused when
  the adapter is loaded.

So adapters are served when all of them is in the language model, or in a family whose whole model was
compared, and refused with a reason otherwise: a merged checkpoint has no such limits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import httpx

from align.config.model_ref import ModelRef
from align.config.recipe import nearest
from align.digest import digest_json, digest_path
from align.errors import AlignError
from align.models.adapter_folder import Adapter, check_plain, module_of, read_adapter
from align.models.families import FAMILIES, known_modules
from align.progress import say

# vLLM's own steps (`MaxLoRARanks` in config/lora.py).
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def check_servable(adapter: Adapter, model_type: str) -> None:
    """vLLM applies the whole adapter.

    Args:
        model_type: of the base, from its config.

    Raises:
        AlignError: what it would ignore or refuse.
    """
    merge_it = "merge it (`align merge`) and serve the checkpoint"
    family = FAMILIES.get(model_type)
    if family is not None and family.serving.lora == "none":
        raise AlignError(
            f"vLLM serves no LoRA adapters for {model_type}", where=str(adapter.path), fix=merge_it
        )
    check_plain(adapter, "serving unmerged")
    if adapter.config.get("modules_to_save") or adapter.config.get("bias", "none") != "none":
        raise AlignError(
            "vLLM serves no adapter that replaces whole parameters (modules_to_save, bias)",
            where=str(adapter.path),
            fix=merge_it,
        )
    if named := adapter.config.get("target_parameters"):
        raise AlignError(
            f"serving adapters of single parameters ({', '.join(sorted(named))}) has not been compared",
            where=str(adapter.path),
            fix=merge_it,
        )
    if adapter.quantization != "none":
        raise AlignError(
            f"the adapter was trained on a base in {adapter.quantization}: served on the base's own weights "
            "it is another model than the trained one",
            where=str(adapter.path),
            fix=merge_it,
        )
    ignored = ignored_tensors(adapter, model_type)
    if ignored:
        counted = ", ".join(f"{len(names)} in {component}" for component, names in ignored.items())
        raise AlignError(
            f"vLLM would ignore {counted} of the adapter's {len(adapter.shapes())} tensors, without a word: "
            f"it applies LoRA to the language model alone in {model_type}",
            where=str(adapter.path),
            fix=merge_it,
        )


def why_merge(adapter: Adapter, model_type: str) -> str:
    """Why vLLM would not serve the adapter whole, unmerged, in words; empty when it would."""
    try:
        check_servable(adapter, model_type)
    except AlignError as error:
        return error.what
    return ""


def ignored_tensors(adapter: Adapter, model_type: str) -> dict[str, list[str]]:
    """Component -> the adapter's tensors there that vLLM does not apply; empty when it applies them all."""
    family = FAMILIES.get(model_type)
    whole = family is not None and family.serving.lora == "whole model"
    return {} if whole else _beside_language(adapter, model_type)


def _beside_language(adapter: Adapter, model_type: str) -> dict[str, list[str]]:
    """Component -> the adapter's tensors there, the language model's left out."""
    modules = known_modules(model_type)
    found: dict[str, list[str]] = {}
    for name in sorted(adapter.shapes()):
        component = modules.component_of(module_of(name)) if modules else None
        if component != "language":
            found.setdefault(component or "other modules", []).append(name)
    return found


def served_rank(adapters: Mapping[str, Path]) -> int:
    """The smallest of vLLM's rank limits that holds every adapter.

    Raises:
        AlignError: one is larger than vLLM can hold.
    """
    largest = 1
    for path in adapters.values():
        shapes = read_adapter(path).shapes()
        largest = max([largest, *(shape[0] for name, shape in shapes.items() if ".lora_A." in name)])
    for rank in RANKS:
        if largest <= rank:
            return rank
    raise AlignError(f"vLLM serves ranks up to {RANKS[-1]}, not {largest}", fix="merge the adapter")


def lora_args(model: ModelRef, adapters: Mapping[str, Path], max_loras: int) -> list[str]:
    """The arguments of vLLM's engine that make room for these adapters, and for others of their rank."""
    if not adapters:
        return []
    args = ["--enable-lora", "--max-lora-rank", str(served_rank(adapters))]
    model_type = str((model.config() or {}).get("model_type"))
    if any(_beside_language(read_adapter(path), model_type) for path in adapters.values()):
        args.append("--enable-tower-connector-lora")
    return [*args, "--max-loras", str(max_loras), "--max-cpu-loras", str(max(max_loras, 16))]


def check_all(model: ModelRef, adapters: Mapping[str, Path]) -> None:
    """Every adapter can be served on this checkpoint, whole.

    Raises:
        AlignError: one cannot, or belongs to another base.
    """
    config = Path(model.path) / "config.json"
    if not config.is_file():
        raise AlignError(
            f"adapters are served on a checkpoint folder, not on a hub id ({model.name})",
            where="serve.adapters",
            fix="name the folder that the adapters were trained on",
        )
    model_type = str(json.loads(config.read_text())["model_type"])
    for name, path in adapters.items():
        adapter = read_adapter(path)
        check_servable(adapter, model_type)
        if adapter.base and adapter.base["digest"] != digest_path(Path(model.path)):
            raise AlignError(
                f"adapter {name!r} was trained on another base ({adapter.base['path']})",
                where=f"serve.adapters.{name} = {path}",
                fix="serve it on the checkpoint that it was trained on",
            )


def load_adapter(url: str, adapters: Mapping[str, Path], adapter: str, where: str) -> str:
    """The model name of an adapter on a running server, which loads it if it does not have it yet.

    Args:
        url: the server's base URL, ending in /v1.
        where: for messages: the server's log, or its URL.

    Raises:
        AlignError: no such name among `adapters`, or a server that does not load it.
    """
    if adapter not in adapters:
        raise AlignError(
            f"no adapter {adapter!r}{nearest(adapter, adapters)}",
            where="serve.adapters",
            fix="add it: serve.adapters.NAME=FOLDER",
        )
    path = adapters[adapter]
    name = served_name(adapter, path)
    try:
        cards = httpx.get(f"{url}/models", timeout=10, trust_env=False).json()["data"]
        if name not in [card["id"] for card in cards]:
            body = {"lora_name": name, "lora_path": str(path.resolve())}
            httpx.post(f"{url}/load_lora_adapter", json=body, timeout=120, trust_env=False).raise_for_status()
            say(f"  adapter {adapter} loaded from {path}")
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        said = error.response.text[:300] if isinstance(error, httpx.HTTPStatusError) else str(error)
        raise AlignError(
            f"the server at {url} does not load the adapter {adapter!r}: {said}",
            where=where,
            fix="a server that align did not start needs --enable-lora, a --max-lora-rank that is large "
            "enough and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True",
        ) from error
    return name


def served_name(name: str, path: Path) -> str:
    """The model name to ask for: vLLM keys what it has computed by it, so it changes with the weights."""
    return f"{name}-{digest_path(path)[:12]}"


def adapted_digest(base: str, path: Path) -> str:
    """The identity of base and adapter together, for the keys of answers."""
    return digest_json([base, digest_path(path)])
