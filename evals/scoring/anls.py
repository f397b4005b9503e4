"""ANLS, average normalised Levenshtein similarity (Biten et al. 2019, arXiv:1905.13648, eq. 1)."""

from __future__ import annotations

from collections.abc import Sequence

from evals.protocol import Mode

THRESHOLD = 0.5


def anls(answer: str, truths: Sequence[str], mode: Mode = "official") -> float:
    """Similarity to the nearest of the right answers, 0 to 1; below the threshold 0.

    Distances are between texts in lower case with single spaces. `official`
    (https://github.com/open-compass/VLMEvalKit, vlmeval/dataset/utils/vqa_eval.py) divides them by the length
    of the longer text *as it came*, in capitals: so padding with spaces raises the similarity, and `ß` is two
    letters long; `strict` divides by the length of what was compared. Exactly 0.5 counts. Two empty texts are
    alike; an answer that is empty or missing is 0 against plain letters.

    >>> [round(anls(text, ["hello"]), 2) for text in ("helo", "he", "Hello", "")], anls("1980", ["1979"])
    ([0.8, 0.0, 1.0, 0.0], 0.5)
    >>> anls("hel" + " " * 9, ["hello"]), anls("hel" + " " * 9, ["hello"], "strict")
    (0.8333333333333334, 0.6)
    >>> anls("1", ["ß"]), anls("1", ["ß"], "strict")
    (0.5, 0.0)
    """
    return max((_similarity(answer, truth, mode) for truth in truths), default=0.0)


def _similarity(answer: str, truth: str, mode: Mode) -> float:
    first, second = " ".join(truth.lower().split()), " ".join(answer.lower().split())
    sides = (first, second) if mode == "strict" else (truth.upper(), answer.upper())
    length = max(map(len, sides))
    if not length or first == second:
        return 1.0
    # The distance is at least the difference in length: a megabyte of text is not compared to a word.
    if 1 - abs(len(first) - len(second)) / length < THRESHOLD:
        return 0.0
    similarity = 1 - levenshtein(first, second) / length
    return similarity if similarity >= THRESHOLD else 0.0


def levenshtein(first: str, second: str) -> int:
    """Fewest insertions, deletions and replacements of characters that turn one text into the other.

    >>> levenshtein("kitten", "sitting"), levenshtein("", "abc")
    (3, 3)
    """
    if len(first) < len(second):
        first, second = second, first
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(second, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (letter != other))
    return row[-1]
