"""What an image becomes in the text that a model reads, told from the image's size alone.

Every processor replaces an image's placeholder by a text of its own: a run of image tokens, whose number
follows from the family's resizing and tiling, and in some families tags, line breaks and tile numbers around
it. Here that text is made with each run written as one token and the rest of the run as a number. The
tokenizer then sees the same words before and after the image as in training, so that the count is exact even
where a line break merges with its neighbour, and no image is decoded.

The rules are the processors' own, of transformers/models/*/processing_*.py 5.19; a test compares each family
with its processor on hundreds of random sizes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from align.errors import AlignError

Size = tuple[int, int]
"""(height, width) in pixels."""


@dataclass(frozen=True)
class Expansion:
    """Text in which each run of image tokens is written once, and the number of tokens left out."""

    text: str
    extra: int


class ImageTokens:
    """Expands the placeholders of a rendered text as its processor would.

    Args:
        processor: a vision-language processor of transformers.

    Raises:
        AlignError: no rule for this processor's class.
    """

    def __init__(self, processor: Any) -> None:
        name = type(processor).__name__
        if not has_rule(processor):
            raise AlignError(
                f"no rule how many tokens an image takes in {name}",
                fix=f"known processors: {', '.join(sorted(_RULES))}. Others train with "
                "trainer.max_length: null, where no row is counted, and without the section dev",
            )
        self._processor, self._rule = processor, _RULES[name]
        self._places = getattr(processor, "image_token", None) if name != "Blip2Processor" else None
        self._known: dict[tuple[Size, bool], Expansion] = {}

    def of(self, size: Size, alone: bool = True) -> Expansion:
        """What an image of this size becomes; `alone`: it is the row's only one."""
        key = (size, alone)
        if key not in self._known:
            self._known[key] = self._rule(self._processor, size, alone)
        return self._known[key]

    def expand(self, segments: Sequence[str], sizes: Sequence[Size]) -> tuple[list[str], int]:
        """The segments of one sequence with their images in place, and the tokens beyond their text.

        Raises:
            AlignError: not as many placeholders as images.
        """
        images = [self.of(size, len(sizes) == 1) for size in sizes]
        extra = sum(image.extra for image in images)
        if self._places is None:  # the processor puts its images before all text
            return list(segments), extra
        if sum(segment.count(self._places) for segment in segments) != len(sizes):
            raise AlignError(
                f"the template has not one placeholder {self._places!r} for each of {len(sizes)} images"
            )
        left, expanded = iter(images), []
        for segment in segments:
            text = _replaced(segment, self._places, left)
            expanded.append(_finish(self._processor, segment, text))
        return expanded, extra


def has_rule(processor: Any) -> bool:
    """Whether it is known how many tokens an image takes in this processor."""
    return type(processor).__name__ in _RULES


def _replaced(segment: str, place: str, images: Any) -> str:
    first, *rest = segment.split(place)
    return first + "".join(next(images).text + part for part in rest)


def _finish(processor: Any, segment: str, text: str) -> str:
    """What two processors do to the whole text of a segment that has images."""
    name, place = type(processor).__name__, processor.image_token
    if place not in segment:
        return text
    if name == "PaliGemmaProcessor":
        end = text.rfind(place) + len(place)
        return f"{text[:end]}{processor.tokenizer.bos_token}{text[end:]}"
    if name == "Idefics2Processor":
        fake = processor.fake_image_token
        return re.sub(rf"{re.escape(fake)}(?=[^\s<])", f"{fake} ", text.replace(fake + fake, fake))
    return text


def _counted(processor: Any, size: Size, alone: bool) -> Expansion:
    """A run of image tokens and nothing else."""
    counted = processor._get_num_multimodal_tokens(image_sizes=[list(size)])
    return Expansion(processor.image_token, int(counted.num_image_tokens[0]) - 1)


def _llava_onevision(processor: Any, size: Size, alone: bool) -> Expansion:
    """Tiles for an only image; several images get one tile and a newline each."""
    if alone:
        return _counted(processor, size, alone)
    tokens = processor.num_image_tokens + 1 - (processor.vision_feature_select_strategy == "default")
    return Expansion(processor.image_token, tokens - 1)


def _internvl(processor: Any, size: Size, alone: bool) -> Expansion:
    patches = processor.image_processor.get_number_of_image_patches(*size, {})
    text = processor.start_image_token + processor.image_token + processor.end_image_token
    return Expansion(text, processor.image_seq_length * patches - 1)


def _idefics3(processor: Any, size: Size, alone: bool) -> Expansion:
    """Tiles by row and column, then the whole image."""
    _, rows, columns = processor.image_processor.get_number_of_image_patches(*size, {})
    inputs = {"rows": [[rows]], "cols": [[columns]]}
    return _collapse(processor.replace_image_token(inputs, 0), processor.image_token)


def _idefics2(processor: Any, size: Size, alone: bool) -> Expansion:
    """A fixed number of latents, five times where images are split into four."""
    fake, pieces = processor.fake_image_token, 5 if processor.image_processor.do_image_splitting else 1
    text = f"{fake}{processor.image_token}{fake}" * pieces
    return Expansion(text, (processor.image_seq_len - 1) * pieces)


def _gemma3(processor: Any, size: Size, alone: bool) -> Expansion:
    if processor.image_processor.do_pan_and_scan:
        raise AlignError(
            "Gemma 3's pan and scan is not counted", fix="set do_pan_and_scan: false in the processor's files"
        )
    return _collapse(processor.full_image_sequence, processor.tokenizer.image_token)


def _blip2(processor: Any, size: Size, alone: bool) -> Expansion:
    """The query tokens before all text."""
    return Expansion("", processor.num_query_tokens)


def _collapse(text: str, token: str) -> Expansion:
    """Each run of `token` written once."""
    short = re.sub(f"(?:{re.escape(token)})+", token, text)
    return Expansion(short, text.count(token) - short.count(token))


_RULES: dict[str, Callable[[Any, Size, bool], Expansion]] = {
    "Blip2Processor": _blip2,
    "Gemma3Processor": _gemma3,
    "Idefics2Processor": _idefics2,
    "Idefics3Processor": _idefics3,
    "InternVLProcessor": _internvl,
    "LlavaNextProcessor": _counted,
    "LlavaOnevisionProcessor": _llava_onevision,
    "LlavaProcessor": _counted,
    "PaliGemmaProcessor": _counted,
    "Qwen2VLProcessor": _counted,
    "Qwen2_5_VLProcessor": _counted,
    "Qwen3VLProcessor": _counted,
    "SmolVLMProcessor": _idefics3,
}
