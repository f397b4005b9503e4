"""Which LoRA adapters vLLM would serve whole, unmerged beside their base, and which it would not.

What vLLM does with an adapter that it cannot apply differs, and only some of it is an error. Read in the
source of 0.32 and tried on the embedded LLaVA, on a CPU:

- Tensors of vision tower and connector are loaded and never used: the server answers as if they were not
  there. `--enable-tower-connector-lora`, experimental there, does not mend it: LLaVA's tower is called
  otherwise inside vLLM (`vision_tower.vision_model`), so that the names still do not meet, and the first
  request with an adapter on ended the engine (room for an image's 64 features, where the tower computes 65).
- DoRA, whole parameters (`modules_to_save`, biases) and initialisations that change the base are refused when
  the adapter is loaded.

An adapter in the language model alone answers as transformers does. A merged checkpoint has no such limits.
"""

from __future__ import annotations

from align.errors import AlignError
from align.families import FAMILIES
from align.merging.adapters import Adapter, check_plain, module_of

# Families whose classes in vLLM take no LoRA; a test reads the installed source.
WITHOUT_LORA = ("llava_onevision", "idefics2", "gpt2")


def check_servable(adapter: Adapter, model_type: str) -> None:
    """vLLM applies the whole adapter.

    Args:
        model_type: of the base, from its config.

    Raises:
        AlignError: what it would ignore or refuse.
    """
    merge_it = "merge it (`align merge`) and serve the checkpoint"
    if model_type in WITHOUT_LORA:
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
            "it applies LoRA to the language model alone",
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
    found: dict[str, list[str]] = {}
    for name in sorted(adapter.shapes()):
        component = family.component_of(module_of(name)) if family else None
        if component != "language":
            found.setdefault(component or "other modules", []).append(name)
    return found
