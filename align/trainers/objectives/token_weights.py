"""Weights of completion tokens, from character spans or from the difference of two answers.

Dense DPO (RLHF-V) weighs the tokens that a correction touched; see `TokenWeights` for the two variants.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from align.trainers.objectives.recipe import TokenWeights, Variant

# Muffin compares whole sequences, whose common prompt matches; these ids stand for its end, so that a
# short match at the very beginning of both answers counts as part of it.
_PROMPT_END = (-1, -2, -3)
_MIN_MATCH = 3


def differing_tokens(
    chosen: Sequence[int], rejected: Sequence[int], variant: Variant
) -> tuple[list[bool], list[bool]]:
    """Which tokens of each answer differ from the other one.

    paper: all that are in no match. released: those between matches of at least three tokens, where
    both sides have some (an insertion alone or a deletion alone doesn't count).
    """
    first, second = [*_PROMPT_END, *rejected], [*_PROMPT_END, *chosen]
    # difflib's heuristic for long sequences takes frequent tokens for junk: the released code has it on
    matcher = SequenceMatcher(None, first, second, autojunk=variant == "released")
    least = _MIN_MATCH if variant == "released" else 1
    marked = [False] * len(first), [False] * len(second)
    start = (0, 0)
    for block in matcher.get_matching_blocks():
        is_end = block.size == 0
        if block.size < least and not is_end:
            continue
        gaps = range(start[0], block.a), range(start[1], block.b)
        if variant == "paper" or all(gaps):
            for flags, gap in zip(marked, gaps, strict=True):
                for index in gap:
                    flags[index] = True
        start = (block.a + block.size, block.b + block.size)
    skip = len(_PROMPT_END)
    return marked[1][skip:], marked[0][skip:]


def pair_weights(
    chosen: Sequence[int],
    rejected: Sequence[int],
    settings: TokenWeights,
    num_words: tuple[int, int] | None = None,
) -> tuple[list[float], list[float]]:
    """Weights of both answers' tokens: gamma where they differ, else 1; the paper's sum to 1.

    Args:
        num_words: how many of each answer's tokens come before its end of turn, which has the weight `end`;
            None: all have the weight of words.
    """
    sides = differing_tokens(chosen, rejected, settings.variant)
    first, second = ([settings.gamma if flag else 1.0 for flag in flags] for flags in sides)
    if num_words is not None:
        for weights, count in zip((first, second), num_words, strict=True):
            weights[count:] = [settings.end] * len(weights[count:])
    return normalised(first, settings.variant), normalised(second, settings.variant)


def span_weights(
    offsets: Sequence[tuple[int, int]],
    spans: Sequence[tuple[int, int, float]],
    variant: Variant,
    num_words: int | None = None,
    end: float = 1.0,
) -> list[float]:
    """Weights from character spans: a token that overlaps a span has its weight, the last one's if several.

    Args:
        offsets: first and one-past-last character of each token.
        spans: first and one-past-last character, weight.
        num_words: how many tokens come before the end of turn, which has the weight `end`; None: all.
    """
    weights = [1.0] * len(offsets)
    if num_words is not None:
        weights[num_words:] = [end] * len(weights[num_words:])
    for begin, end, weight in spans:
        for index, (first, last) in enumerate(offsets):
            if first < end and last > begin:
                weights[index] = weight
    return normalised(weights, variant)


def normalised(weights: list[float], variant: Variant) -> list[float]:
    """Divided by their sum in the paper's variant (N = |y_u| + gamma |y_c|), else unchanged."""
    total = sum(weights)
    return [weight / total for weight in weights] if variant == "paper" and total else weights
