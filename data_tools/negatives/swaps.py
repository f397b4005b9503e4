"""A true text made false by swapping objects for absent ones that usually come with the rest (POVID).

Models invent what usually stands beside what they see, so the rejected text names just that (Zhou et al.
2024, arXiv 2402.11411, section 3.1: object co-occurrence). There GPT-4V rewrites the text; here annotations
say what is there and what comes together, and words are exchanged.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from random import Random

from align.objects.mentions import Mention, Mode, find_objects, synonyms
from align.objects.plurals import plural, with_article
from align.rows.schema import Span
from data_tools.material.co_occurrence import CoOccurrence

_PLURAL_WORDS = frozenset({"people", "men", "women", "children", "mice", "knives", "geese"})
_ARTICLE = re.compile(r"\b(?:an?|a pair of|some)\s+$", re.IGNORECASE)


@dataclass(frozen=True)
class Swapped:
    """A text with swapped objects.

    Attributes:
        swaps: object -> what took its place.
        old, new: spans of the exchanged words in the original and in the new text.
    """

    text: str
    swaps: dict[str, str]
    old: list[Span]
    new: list[Span]


def swap_objects(
    text: str,
    present: Collection[str],
    table: CoOccurrence,
    num_swaps: int,
    among: int,
    weight: float,
    rng: Random,
    mode: Mode,
) -> Swapped | None:
    """Exchange up to `num_swaps` of the objects that the text truly names, every mention of each.

    Args:
        present: what is in the image.
        among: the new object is drawn from so many of the likeliest absent ones.
        weight: of the spans.

    Returns:
        None where the text names nothing that is there, or nothing is likely beside it.
    """
    mentions = find_objects(text, mode)
    named = list(dict.fromkeys(mention.category for mention in mentions if mention.category in present))
    rng.shuffle(named)
    taken: set[str] = set(present) | {mention.category for mention in mentions}
    swaps: dict[str, str] = {}
    for name in named[:num_swaps]:
        options = [
            other
            for other in table.likeliest(set(present) - {name}, among + len(taken))
            if other not in taken
        ][:among]
        if options:
            swaps[name] = rng.choice(options)
            taken.add(swaps[name])
    return _exchange(text, mentions, swaps, weight) if swaps else None


def _exchange(text: str, mentions: list[Mention], swaps: Mapping[str, str], weight: float) -> Swapped:
    pieces: list[str] = []
    old: list[Span] = []
    new: list[Span] = []
    done = length = 0
    for mention in mentions:
        if mention.category not in swaps:
            continue
        start, words = _in_place(text, mention, swaps[mention.category])
        kept = text[done:start]
        pieces += [kept, words]
        length += len(kept)
        old.append(Span(start=start, end=mention.end, weight=weight))
        new.append(Span(start=length, end=length + len(words), weight=weight))
        done, length = mention.end, length + len(words)
    return Swapped("".join(pieces) + text[done:], dict(swaps), old, new)


def _in_place(text: str, mention: Mention, name: str) -> tuple[int, str]:
    """Where the exchanged words begin (an article belongs to them) and what stands there instead."""
    article = _ARTICLE.search(text[: mention.start])
    start = article.start() if article else mention.start
    if _is_plural(mention.text):
        words = (article.group() if article else "") + plural(name)
    else:
        words = with_article(name) if article else name
    return start, words[:1].upper() + words[1:] if text[start].isupper() else words


def _is_plural(word: str) -> bool:
    last = word.lower().split()[-1]
    return last in _PLURAL_WORDS or (last.endswith("s") and word.lower() not in synonyms())
