"""Answer normalisation of the VQA family, as the evaluation servers do it: quirks included.

Sources of the rules: https://github.com/GT-Vision-Lab/VQA, PythonEvaluationTools/vqaEvaluation/vqaEval.py
at c4e6a0e4 (`normalise`), and EvalAI's answer processor, https://github.com/facebookresearch/mmf,
pythia/tasks/processors.py at c46b3b33, which LLaVA keeps in llava/eval/m4c_evaluator.py (`normalise_evalai`).
"""

from __future__ import annotations

import re

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
_MAX_FULL_STOPS = 32
"""The server passes a regex flag where the number of replacements goes; the flag's value is 32."""

_NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"zero": "0"}
_ARTICLES = frozenset({"a", "an", "the"})

# Words that the server writes with an apostrophe when they come without: spelt here with it.
_CONTRACTED = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's
isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've
shouldn't somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd
there're there's they'd they'll they're they've wasn't we've weren't what'll what're what's what've when's
where'd where's where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd
you'll you're you've
"""
# With two apostrophes: either one may be missing.
_TWICE = """
couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've there'd've
something'd've they'd've we'd've who'd've wouldn't've y'all'll y'all'd've you'd've
"""


def _contractions() -> dict[str, str]:
    table = {word.replace("'", ""): word for word in _CONTRACTED.split()}
    for word in _TWICE.split():
        first = word.index("'")
        second = word.rindex("'")
        table[word[:first] + word[first + 1 :]] = word
        table[word[:second] + word[second + 1 :]] = word
    irregular = {"twas": "'twas", "somebody'd": "somebodyd", "y'alld've": "y'all'd've"}
    return table | irregular | dict.fromkeys(("ow's'at", "'ows'at", "'ow'sat"), "'ow's'at")


_CONTRACTIONS = _contractions()


def normalise(answer: str) -> str:
    """Punctuation, number words, articles and contractions as VQAEval processes them.

    >>> [normalise(text) for text in ("A red, bus.", "1,000", "U.S.A.", "one-way", "dont know", "the")]
    ['red bus', '1000', 'usa', '1 way', "don't know", '']
    """
    return _digits_and_articles(_punctuation(answer))


def normalise_evalai(answer: str) -> str:
    """EvalAI's form of the same rules (TextVQA, VizWiz): lower case first, commas and question marks go at
    once and before everything else, and a possessive 's becomes a word of its own.

    So `it's` is no contraction here, and no comma is left to protect the marks of a number.

    >>> [normalise_evalai(text) for text in ("A red, bus.", "1,000", "Bob's 3.5!", "why?no", "Dont\\tknow")]
    ['red bus', '1000', "bob 's 3.5", 'whyno', "don't know"]
    """
    word = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return _digits_and_articles(_punctuation(clean(word)))


def clean(answer: str) -> str:
    """What is done to every answer first: line breaks and tabs become spaces, ends are trimmed."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def _punctuation(text: str) -> str:
    """A mark is deleted if it stands beside a space anywhere, or if any comma stands between digits;
    otherwise it becomes a space."""
    has_digit_comma = _DIGIT_COMMA.search(text) is not None
    result = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if beside_space or has_digit_comma else " ")
    return _FULL_STOP.sub("", result, count=_MAX_FULL_STOPS)


def _digits_and_articles(text: str) -> str:
    words = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
