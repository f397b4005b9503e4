"""How many tokens a row costs, from the image's header alone: nothing is decoded, nothing is run."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any

from align.inputs.chat import sees_images, tokenizer_of
from align.inputs.image_tokens import ImageTokens, Size
from align.inputs.text_rows import sequence_ids

_TEXTS_AT_ONCE = 1024

TokenSequence = tuple[Sequence[str], Sequence[Size]]
"""Text segments that are tokenized apart, and the sizes of the images in their placeholders, in order."""


class TokenBudget:
    """Counts tokens as the processor will, image placeholders expanded.

    Args:
        processor: a vision-language processor of transformers >= 5, or a tokenizer.

    Raises:
        AlignError: no rule how many tokens an image takes in this processor.
    """

    def __init__(self, processor: Any) -> None:
        self._tokenizer = tokenizer_of(processor)
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        plain = backend is not None and backend.truncation is None and backend.padding is None
        self._fast = backend if plain and not self._tokenizer.split_special_tokens else None
        self._images = ImageTokens(processor) if sees_images(processor) else None

    def lengths(self, sequences: Sequence[TokenSequence]) -> list[int]:
        """Tokens of each sequence, without the special tokens that a tokenizer would put around a text.

        Raises:
            AlignError: a sequence whose text has not one placeholder an image.
        """
        if self._images is None:
            plain = sequence_ids(self._tokenizer, [segments for segments, _ in sequences])
            return [sum(map(len, segments)) for segments in plain]
        expanded = [
            self._images.expand(segments, sizes) if sizes else (segments, 0) for segments, sizes in sequences
        ]
        tokens = self._count(sorted({text for segments, _ in expanded for text in segments}))
        return [sum(tokens[text] for text in segments) + extra for segments, extra in expanded]

    def image(self, size: Size, alone: bool = True) -> int:
        """Image tokens that an image of this size takes, tags and line breaks around them left out."""
        return self._images.of(size, alone).extra + 1 if self._images else 0

    def _count(self, texts: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            batch = list(texts[start : start + _TEXTS_AT_ONCE])
            found.update(zip(batch, map(len, self._encoded(batch)), strict=True))
        return found

    def _encoded(self, texts: list[str]) -> Sequence[Sized]:
        """What `tokenizer(texts)` gives; asked of the library behind it where it is one."""
        if self._fast is not None:
            return self._fast.encode_batch_fast(texts, add_special_tokens=False)
        return self._tokenizer(texts, add_special_tokens=False)["input_ids"]
