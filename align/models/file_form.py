"""A model written again in the form of the files that it was loaded from, which is what servers read.

transformers undoes its conversions when it saves, with two gaps that are closed here: experts that a file
holds transposed (Qwen3-VL's) would be written untransposed, which vLLM takes for transposed ones, and tensors
that the model's class leaves out (the layers of Qwen3.5 that guess further tokens) would be missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.progress import say

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LEFT_OUT = "model-left-out.safetensors"
"""Beside the files of a saved model: the base's tensors that the model's class does not load."""
_INDEX = "model.safetensors.index.json"


def tensor_files(folder: Path) -> dict[str, Path]:
    """Tensor name -> its safetensors file, for all files of a checkpoint folder."""
    from safetensors import safe_open

    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            found |= {key: path for key in file.keys()}  # noqa: SIM118 - not a mapping
    return found


def keep_file_form(model: PreTrainedModel, folder: Path) -> None:
    """Make a loaded model's `save_pretrained` transpose again what was transposed when it was loaded.

    The library's `Transpose(check_dims=True)` looks at the parameter's shape in both directions, so it never
    transposes back. What the files hold decides here.

    Args:
        folder: where the model was loaded from.
    """
    from safetensors import safe_open
    from transformers.core_model_loading import Transpose

    looked_at = [
        (conversion, operation)
        for conversion in getattr(model, "_weight_conversions", None) or ()
        for operation in getattr(conversion, "operations", ())
        if isinstance(operation, Transpose) and operation.check_dims
    ]
    files = tensor_files(folder) if looked_at else {}
    for conversion, operation in looked_at:
        key = next((key for key in files if conversion.compiled_sources.search(key)), None)
        shapes = (p.shape for n, p in model.named_parameters() if n.endswith(conversion.target_patterns[0]))
        shape = next(shapes, None)
        if key is None or shape is None:
            continue
        with safe_open(str(files[key]), framework="pt") as file:
            stored = tuple(file.get_slice(key).get_shape())
        operation.check_dims = stored == tuple(shape)


def copy_tensors(names: Iterable[str], base: Path, checkpoint: Path) -> None:
    """Put tensors of the base that its class does not load beside those of a checkpoint saved from it.

    Args:
        names: in the base's files; those that the checkpoint has already are left.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    there = tensor_files(checkpoint)
    files = tensor_files(base)
    tensors: dict[str, Any] = {}
    for name in (name for name in names if name not in there):
        with safe_open(str(files[name]), framework="pt") as file:
            tensors[name] = file.get_tensor(name)
    if not tensors:
        return
    save_file(tensors, checkpoint / LEFT_OUT, {"format": "pt"})
    index = checkpoint / _INDEX
    if index.is_file():
        content = json.loads(index.read_text())
        content["weight_map"] |= dict.fromkeys(tensors, LEFT_OUT)
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        content["metadata"]["total_size"] = content["metadata"].get("total_size", 0) + size
        index.write_text(json.dumps(content, indent=2) + "\n")
    say(
        f"  {len(tensors)} tensors that the model's class does not load are copied: {sorted(tensors)[0]}, ..."
    )
