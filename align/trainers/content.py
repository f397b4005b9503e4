"""Digests of what a number computed by a model depends on: weights, settings, pixels.

They become parts of the keys of the reference and the feature store. Each errs on the strict side: what
might change a number changes the digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import transformers
from PIL import Image

from align.digest import digest_json

# Keys of a config that name a place or a version and change no number.
_NOT_COMPUTED = {"_name_or_path", "name_or_path", "transformers_version", "use_cache", "pad_token_id"}


def pixels_digest(image: Image.Image) -> str:
    """sha256 over mode, size and decoded pixels: what the processor reads, whatever file it came from."""
    digest = hashlib.sha256(f"{image.mode} {image.size}".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def processor_digest(processor: Any) -> str:
    """Digest of the settings that turn an image into the model's pixel values."""
    image_processor = processor.image_processor
    return digest_json([type(image_processor).__name__, image_processor.to_dict()])


def parameters_digest(model: torch.nn.Module, keep: Callable[[str], bool] = lambda name: True) -> str:
    """sha256 over names, dtypes, shapes and bytes of the parameters and buffers that `keep` accepts."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    kept = {name: tensor for name, tensor in tensors.items() if keep(name)}
    with ThreadPoolExecutor() as pool:  # hashing leaves the interpreter lock
        digests = pool.map(_tensor_digest, kept.values())
    return digest_json(dict(zip(kept, digests, strict=True)))


def model_scope(model: Any, weights: str, processor: Any, autocast: str) -> dict[str, Any]:
    """What log-probs depend on apart from the row: the scope of a `ReferenceStore`.

    Args:
        model: the reference, wrapped by PEFT or not; its config and attention implementation are read.
        weights: digest of its weights.
        processor: with `image_processor`; a tokenizer needs none, the ids themselves are in the key.
        autocast: the dtype that the forward is cast to, or "no".
    """
    config = model.config
    return {
        "weights": weights,
        "config": _computed(config.to_dict()),
        "dtype": str(next(model.parameters()).dtype),
        "autocast": autocast,
        "attention": _attention(config),
        "processor": processor_digest(processor) if hasattr(processor, "image_processor") else None,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }


def reference_weights(model: Any) -> str:
    """Digest of the weights that the reference computes with.

    A PEFT model's reference is the base, or the base with the frozen copy that TRL names `ref`: the
    adapters that train are left out, so that the reference of a resumed run is the same one.
    """
    adapters = [name for name in getattr(model, "peft_config", {}) if name != "ref"]
    return parameters_digest(model, lambda name: not any(f".{adapter}." in name for adapter in adapters))


def vision_weights(model: Any) -> str:
    """Digest of everything in front of the decoder: tower and connector, adapters on them included."""
    decoder = {id(parameter) for parameter in model.get_decoder().parameters()}
    decoder |= {id(parameter) for parameter in model.get_output_embeddings().parameters()}
    kept = {name for name, parameter in model.named_parameters() if id(parameter) not in decoder}
    return parameters_digest(model, kept.__contains__)


def _computed(settings: Any) -> Any:
    """A config's settings without the keys that name places, at every depth."""
    if not isinstance(settings, dict):
        return settings
    return {key: _computed(value) for key, value in settings.items() if key not in _NOT_COMPUTED}


def _attention(config: Any) -> Any:
    """The attention implementation of the model and of each part that has a config of its own."""
    parts = {name: value for name, value in vars(config).items() if hasattr(value, "_attn_implementation")}
    own = getattr(config, "_attn_implementation", None)
    return {"": own, **{name: value._attn_implementation for name, value in parts.items()}}


def _tensor_digest(tensor: torch.Tensor) -> str:
    data = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{data.dtype} {tuple(data.shape)}".encode())
    digest.update(data.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
