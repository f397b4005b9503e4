"""What an image becomes in the text that a model reads, told from the image's size alone.

Every processor replaces an image's placeholder by a text of its own: a run of image tokens, whose number
follows from the family's resizing and tiling, and in some families tags, line breaks and tile numbers around
it. Here that text is made with each run written as one token and the rest of the run as a number. The
tokenizer then sees the same words before and after the image as in training, so that the count is exact even
where a line break merges with its neighbour, and no image is decoded.

The rules stand with their families (`align.models.families`); here they are put to a whole text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from align.errors import AlignError
from align.models.families import known_processors, processor_facts
from align.models.image_rules import Expansion, Size


class ImageTokens:
    """Expands the placeholders of a rendered text as its processor would.

    Args:
        processor: a vision-language processor of transformers.

    Raises:
        AlignError: no rule for this processor's class.
    """

    def __init__(self, processor: Any) -> None:
        facts = processor_facts(processor)
        if facts is None:
            raise AlignError(
                f"no rule how many tokens an image takes in {type(processor).__name__}",
                fix=f"known processors: {', '.join(sorted(known_processors()))}. Others train with "
                "trainer.max_length: null, where no row is counted, and without the section dev",
            )
        self._processor, self._facts = processor, facts
        self._places = getattr(processor, "image_token", None) if facts.place == "image token" else None
        self._known: dict[tuple[Size, bool], Expansion] = {}

    def of(self, size: Size, alone: bool = True) -> Expansion:
        """What an image of this size becomes; `alone`: it is the row's only one."""
        key = (size, alone)
        if key not in self._known:
            self._known[key] = self._facts.image(self._processor, size, alone)
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
            expanded.append(self._placed(segment, self._places, left))
        return expanded, extra

    def _placed(self, segment: str, place: str, images: Iterator[Expansion]) -> str:
        """A segment with its images in place, and what else its processor does to one that has images."""
        first, *rest = segment.split(place)
        text = first + "".join(next(images).text + part for part in rest)
        return self._facts.finish(self._processor, segment, text) if rest and self._facts.finish else text


def has_rule(processor: Any) -> bool:
    """Whether it is known how many tokens an image takes in this processor."""
    return processor_facts(processor) is not None
