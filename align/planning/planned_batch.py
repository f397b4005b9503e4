"""A batch of rows of chosen lengths, as the trainers' collators would make it, for a model without weights.

Token ids are made up, image tokens are as many as the vision encoder makes features, pixels have the shape
that the family's image processor gives a picture of that size.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from align.errors import AlignError
from align.inputs.image_tokens import Size
from align.models.families import FAMILIES
from align.models.live_memory import LiveMemory
from align.trainers.pair_collator import image_blocks
from align.trainers.shared_row import Branch, Group, pack

_FIRST_WORD = 10
IGNORED = -100


@dataclass(frozen=True)
class RowShape:
    """Lengths of one row, in tokens.

    Attributes:
        prompt: before the first answer token, image tokens not counted.
        answers: of each answer: one for SFT, chosen and rejected for DPO.
        images: (height, width) in pixels of each image.
    """

    prompt: int
    answers: tuple[int, ...]
    images: tuple[Size, ...] = ()


@dataclass(frozen=True)
class Batch:
    """What the model is called with.

    Attributes:
        inputs: keyword arguments, `labels` `[S, L]` among them, `shared_row` too where rows are shared.
        tokens: of the longest sequence, L.
        image_tokens: of one row.
    """

    inputs: dict[str, Any]
    tokens: int
    image_tokens: int

    @property
    def sequences(self) -> int:
        """S."""
        return int(self.inputs["labels"].shape[0])


def build_batch(
    model: Any,
    row: RowShape,
    count: int,
    shared: bool,
    image_processor: Any,
    fake: Callable[[Tensor], Tensor],
) -> Batch:
    """`count` such rows.

    Args:
        model: without its PEFT wrapper, with fake parameters.
        shared: one shared row, vision inputs once; else separate rows with an image each.
        image_processor: the family's; None for a text-only model.
        fake: makes a fake tensor of another's shape and dtype.
    """
    repeats = 1 if shared else len(row.answers)
    vision = vision_inputs(model, image_processor, row.images * (count * repeats), fake)
    placeholders = _num_features(model, vision) // (count * repeats) if vision else 0
    image_id, word = _ids(model.config)
    prefix = [word] + [image_id] * placeholders + [word] * max(1, row.prompt - 1)
    kinds = [int(token == image_id) for token in prefix]
    rows = [[*prefix, *[word] * length] for length in row.answers]
    width = max(map(len, rows))
    takes = inspect.signature(type(model).forward).parameters
    sequences = len(rows) * count
    labels = torch.full((sequences, width), IGNORED)
    for number, own in enumerate(rows):
        labels[number * count : (number + 1) * count, len(prefix) : len(own)] = word
    ids = torch.tensor([own + [word] * (width - len(own)) for own in rows]).repeat_interleave(count, 0)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, **vision}
    for name in {"token_type_ids", "mm_token_type_ids"} & set(takes):
        inputs[name] = torch.tensor(kinds + [0] * (width - len(kinds))).repeat(sequences, 1)
    if shared:
        blocks = image_blocks(kinds) if "token_type_ids" in takes else None
        group = Group(prefix, [Branch([word] * length) for length in row.answers], blocks)
        order = [side * count + number for number in range(count) for side in range(len(rows))]
        inputs["shared_row"] = pack([group] * count, batch_rows=order)
    return Batch(inputs, width, placeholders)


def vision_inputs(
    model: Any, image_processor: Any, sizes: Sequence[Size], fake: Callable[[Tensor], Tensor]
) -> dict[str, Any]:
    """What the family's image processor makes of pictures of these sizes, as far as the model reads it.

    Raises:
        AlignError: the image processor refuses them.
    """
    if image_processor is None or not sizes:
        return {}
    pictures = [[Image.new("RGB", (width, height))] for height, width in sizes]
    try:
        made = image_processor(images=pictures, return_tensors="pt")
    except (ValueError, TypeError, RuntimeError) as error:
        kind = type(image_processor).__name__
        raise AlignError(f"{kind} refuses a picture of {sizes[0][1]}x{sizes[0][0]}: {error}") from error
    takes = inspect.signature(type(model).forward).parameters
    inputs = {name: torch.as_tensor(value) for name, value in made.items() if name in takes}
    return {name: fake(value) if value.is_floating_point() else value for name, value in inputs.items()}


def image_processor_of(config: Any) -> Any:
    """The family's image processor, its settings from the model's config where that has them.

    For a folder with a `config.json` and nothing else. The rest are the class's defaults.

    Raises:
        AlignError: transformers knows no image processor for this model.
    """
    import transformers
    from transformers.models.auto import image_processing_auto

    vision = getattr(config, "vision_config", None)
    if vision is None:
        return None
    known = vars(image_processing_auto)["IMAGE_PROCESSOR_MAPPING_NAMES"]
    alike = _of_one_processor(config.model_type)  # the library's list lacks Qwen3-VL's with experts
    names = next((known[name] for name in (config.model_type, *alike) if known.get(name)), {})
    kind = getattr(transformers, names.get("pil") or names.get("torchvision") or "", None)
    if kind is None:
        fix = "put the checkpoint's preprocessor_config.json beside config.json"
        raise AlignError(f"no image processor is known for {config.model_type}", fix=fix)
    return kind(**_processor_settings(config, vision))


def _of_one_processor(model_type: str) -> list[str]:
    """Families whose processor is of the same class."""
    family = FAMILIES.get(model_type)
    own = family.processor if family is not None else None
    if own is None:
        return []
    return [n for n, other in FAMILIES.items() if other.processor and other.processor.name == own.name]


def _processor_settings(config: Any, vision: Any) -> dict[str, Any]:
    side = getattr(vision, "image_size", None)
    side = side[0] if isinstance(side, (list, tuple)) else side
    family = FAMILIES.get(config.model_type)
    sized = family.image_size if family is not None else None
    found = sized(side) if sized is not None else {}
    if hasattr(config, "image_grid_pinpoints"):
        found["image_grid_pinpoints"] = config.image_grid_pinpoints
    for theirs, ours in (("patch_size", "patch_size"), ("spatial_merge_size", "merge_size")):
        if hasattr(vision, "spatial_merge_size") and hasattr(vision, theirs):
            found[ours] = getattr(vision, theirs)
    return found


def _num_features(model: Any, vision: dict[str, Any]) -> int:
    encode = model.get_image_features
    if "pixel_values" not in inspect.signature(encode).parameters:  # MiniCPM-V's only hands on
        encode = model.base_model.get_image_features
    takes = inspect.signature(encode).parameters
    with torch.no_grad(), LiveMemory(nn.Module()):  # which also runs what asks for values
        output = encode(**{name: vision[name] for name in vision if name in takes})
    features = output.pooler_output
    parts = list(features) if isinstance(features, (list, tuple)) else [features]
    return sum(part.shape[:-1].numel() for part in parts)


def _ids(config: Any) -> tuple[int, int]:
    """The image placeholder's id, and that of a token without a meaning of its own."""
    image = getattr(config, "image_token_id", None)
    image = getattr(config, "image_token_index", -1) if image is None else image
    special = {value for name, value in vars(config).items() if name.endswith(("_id", "_index"))}
    return image, next(number for number in range(_FIRST_WORD, 1000) if number not in special)
