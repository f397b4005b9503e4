"""What an image's size becomes in text: the form of a family's rule, and the arithmetic that families share.

The rules are the processors' own, of transformers/models/*/processing_*.py 5.19; a test compares each family
with its processor on hundreds of random sizes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Size = tuple[int, int]
"""(height, width) in pixels."""


@dataclass(frozen=True)
class Expansion:
    """Text in which each run of image tokens is written once, and the number of tokens left out."""

    text: str
    extra: int


ImageRule = Callable[[Any, Size, bool], Expansion]
"""(processor, size, alone) -> what an image of this size becomes; alone: it is the row's only one."""


def counted(processor: Any, size: Size, alone: bool) -> Expansion:
    """A run of image tokens and nothing else, as many as the processor itself counts."""
    tokens = processor._get_num_multimodal_tokens(image_sizes=[list(size)])
    return Expansion(processor.image_token, int(tokens.num_image_tokens[0]) - 1)


def collapsed(text: str, token: str) -> Expansion:
    """Each run of `token` written once.

    >>> collapsed("<a><i><i><i></a><i><i>", "<i>")
    Expansion(text='<a><i></a><i>', extra=3)
    """
    short = re.sub(f"(?:{re.escape(token)})+", token, text)
    return Expansion(short, text.count(token) - short.count(token))
