"""What checks cost, by an estimate in tokens: the same on every machine and in every resumed run.

A check whose number depended on a clock would make two runs of one recipe keep different steps. So the
number of checks comes from recipe and rows alone, and the measured cost is only said. One unit is a token
read once through the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from align.dev_check.asked import Asked
from align.dev_check.recipe import DevSection
from align.inputs.budget import TokenBudget
from align.inputs.chat import render
from align.inputs.images import image_size, resolve_image

DECODE_STEP = {"cpu": 40, "gpu": 512}
"""Tokens that could be read in the time that a decoding step of a batch takes beyond its own tokens: a step
waits for the interpreter on a CPU, for memory on a GPU. On the CPU from a 7M model on two cores, on the
GPU from a 7B model's weights and a card's bandwidth, on paper."""
ANSWER_SHARE = 0.33
"""Of the longest allowed answer, how long the longest of a batch is."""
_FEWEST = 3


@dataclass(frozen=True)
class Cost:
    """Units of work.

    Attributes:
        row: of training on one row.
        check: of one check.
    """

    row: float
    check: float

    def share(self, num_checks: int, max_steps: int, rows_a_step: int) -> float:
        """Of the whole run, checks included, from 0 to 1."""
        checks = num_checks * self.check
        return checks / (checks + self.row * rows_a_step * max_steps)


def question_lengths(asked: Sequence[Asked], processor: Any, root: Path | None) -> list[int]:
    """Tokens of each question, its pictures' included, without opening more than the pictures' headers."""
    sequences = []
    for item in asked:
        text = render(processor, list(item.messages), len(item.images), add_generation_prompt=True)
        sizes = [image_size(resolve_image(root, name)) for name in item.images] if root is not None else []
        sequences.append(((text,), sizes))
    return TokenBudget(processor).lengths(sequences)


def cost_of(
    asked: Sequence[Asked],
    batches: Sequence[Sequence[int]],
    lengths: Sequence[int],
    trained: Sequence[int],
    passes: float,
    read: float = 0.0,
) -> Cost:
    """The cost of a run's rows and of one check.

    Args:
        batches: places in `asked` that are answered together.
        lengths: tokens of the questions.
        trained: tokens of the training rows.
        passes: what training on a row costs, in forwards.
        read: tokens that a check reads besides, of held-out rows.
    """
    waits = DECODE_STEP["gpu" if torch.cuda.is_available() else "cpu"]
    written = sum((waits + len(own)) * ANSWER_SHARE * asked[own[0]].max_new_tokens for own in batches)
    return Cost(passes * sum(trained) / len(trained), sum(lengths) + read + written)


def check_steps(section: DevSection, cost: Cost, max_steps: int, rows_a_step: int) -> list[int]:
    """The steps of the checks: step 0, the last one, and evenly in between, or `every` so many."""
    if section.every is not None:
        return sorted({*range(0, max_steps, section.every), max_steps})
    fewest = min(_FEWEST, section.checks)
    count = min(section.checks, max(fewest, affordable(section, cost, max_steps, rows_a_step)))
    return sorted({round(number * max_steps / (count - 1)) for number in range(count)})


def affordable(section: DevSection, cost: Cost, max_steps: int, rows_a_step: int) -> int:
    """How many checks `share_of_time` pays for, at most those asked for."""
    return next(
        (
            n
            for n in range(section.checks, 0, -1)
            if cost.share(n, max_steps, rows_a_step) <= section.share_of_time
        ),
        0,
    )


def plan_in_words(section: DevSection, cost: Cost, max_steps: int, rows_a_step: int) -> str:
    """How many checks there will be and what they cost; where that is not what was asked for, why, and what
    would change it."""
    count = len(check_steps(section, cost, max_steps, rows_a_step))
    words = f"{count} checks, by an estimate {cost.share(count, max_steps, rows_a_step):.0%} of the run"
    paid = affordable(section, cost, max_steps, rows_a_step)
    if section.every is not None or paid >= min(section.checks, max_steps + 1):
        return words
    share = f"dev.share_of_time = {section.share_of_time:.0%}"
    why = f"of {section.checks} asked for {share} pays for {paid}"
    if paid < count:
        why += f", and fewer than {count} are never made"
    return f"{words}; {why}. A larger share, fewer questions, shorter answers or a longer run allow more"
