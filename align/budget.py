"""How many tokens a row costs, from the image's header alone: nothing is decoded, nothing is run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align.errors import AlignError


class TokenBudget:
    """Counts tokens as the processor will, image placeholders expanded.

    Args:
        processor: a vision-language processor of transformers >= 5.

    Raises:
        AlignError: the processor cannot tell an image's tokens from its size.
    """

    def __init__(self, processor: Any) -> None:
        if not hasattr(processor, "_get_num_multimodal_tokens"):
            raise AlignError(
                f"{type(processor).__name__} cannot count image tokens", fix="set trainer.max_length: null"
            )
        self._processor = processor
        self._by_size: dict[tuple[int, int], int] = {}

    def image(self, size: tuple[int, int]) -> int:
        """Tokens that an image of (height, width) pixels takes."""
        if size not in self._by_size:
            counted = self._processor._get_num_multimodal_tokens(image_sizes=[list(size)])
            self._by_size[size] = int(counted.num_image_tokens[0])
        return self._by_size[size]

    def texts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, an image placeholder counted as one."""
        if not texts:
            return []
        encoded = self._processor.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [len(ids) for ids in encoded]

    def row(self, num_text_tokens: int, sizes: Sequence[tuple[int, int]]) -> int:
        """Length of a sequence whose text holds one placeholder for each image of `sizes`."""
        return num_text_tokens + sum(self.image(size) - 1 for size in sizes)
