"""ChartQA's relaxed accuracy: numbers within 5 % of the target, texts equal (Masry et al. 2022,
arXiv:2203.10244, section 5.1; Methani et al. 2020, arXiv:1909.00997)."""

from __future__ import annotations

import math
import re

from evals.protocol import Mode

TOLERANCE = 0.05
_DECORATION = re.compile(r"(?<=\d),(?=\d{3}(?!\d))|^[$€£¥]|(?<=\d)\s*%$")
_YEAR = re.compile(r"(1[89]|20)\d\d")
_ROUNDING = 1e-9
"""1.05 is within 5 % of 1, though its binary form is a hair outside; `official` lets it fail."""


def relaxed_match(target: str, answer: str, mode: Mode = "official") -> bool:
    """Whether an answer counts as right.

    `official` (https://github.com/google-research/pix2struct, pix2struct/metrics.py): both are read as
    numbers, `5%` as 0.05; a target of 0, or a side that is no number, is compared as text, without regard to
    case. So `0.0` is wrong for `0`, `50%` for `50`, `1,000` for `1000`, and 1920 is right for the year 2015.
    `strict` reads thousands' commas, a currency sign and a per cent sign away, drops a closing full stop,
    takes 0 for 0.0, and wants years (1800 to 2099 without a decimal point) exactly.

    >>> [relaxed_match("100", text) for text in ("105", "105.01")], relaxed_match("5%", "0.05")
    ([True, False], True)
    >>> [relaxed_match(*pair) for pair in (("0", "0.0"), ("0", "0"), ("50", "50%"), ("2015", "1920"))]
    [False, True, False, True]
    >>> [relaxed_match(*pair, "strict") for pair in (("0", "0.0"), ("50", "50%"), ("2015", "1920"))]
    [True, True, False]
    """
    return _strict(target, answer) if mode == "strict" else _official(target, answer)


def _official(target: str, answer: str) -> bool:
    goal, value = _number(target), _number(answer)
    if value is not None and goal:
        return abs(value - goal) / abs(goal) <= TOLERANCE
    return answer.lower() == target.lower()


def _strict(target: str, answer: str) -> bool:
    goal_text, text = (
        _DECORATION.sub("", side.strip().removesuffix(".").strip()) for side in (target, answer)
    )
    goal, value = _number(goal_text), _number(text)
    if goal is None or value is None or not math.isfinite(goal):
        return text.casefold() == goal_text.casefold()
    if not goal or _YEAR.fullmatch(goal_text):
        return goal == value
    return abs(value - goal) / abs(goal) <= TOLERANCE + _ROUNDING


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
