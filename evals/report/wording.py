"""Numbers as the report writes them."""

from __future__ import annotations

import re

_MINUS = re.compile(r"-(?=\d)")


def signed(text: str) -> str:
    """With true minus signs before digits."""
    return _MINUS.sub("−", text)


def interval(delta: float | None, low: float | None, high: float | None, digits: int = 1) -> str:
    """`-3.2 [-5.0, -1.4]`, with a minus sign."""
    if delta is None:
        return "–"
    text = f"{delta:+.{digits}f}"
    if low is not None and high is not None:
        text += f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    return signed(text)


def points(margin: float) -> str:
    """`1 point`, `3 points`."""
    return f"{margin:g} point" + ("" if margin == 1 else "s")


def digits_of(value: float | None, digits: int, missing: str = "") -> str:
    """A number with so many decimals and a true minus sign, or what stands for none."""
    return missing if value is None else signed(f"{value:.{digits}f}")


def join_words(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def shown_p(p: float | None) -> str:
    """Three digits, or `<.001`."""
    if p is None:
        return ""
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")
