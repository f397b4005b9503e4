"""The option that an answer to a multiple-choice question picks.

`choices` map letters to the options' texts; every parser gives a letter of them, or None where the answer
picks none. An answer without a pick is wrong: nothing is ever drawn at random.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

LETTERS = "ABCDEFGHIJ"

_SCIENCEQA = re.compile(r"The answer is ([A-Z]).")
_SCIENCEQA_LETTERS = "ABCDE"

_MMBENCH_MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_MMBENCH_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_MMBENCH_FAILED = "Failed to obtain answer via API"
_MMBENCH_STATED = re.compile(r"(?i)(?:correct\s+)?answer\s+is\s+\**([ABCD])\**")
_MMBENCH_LAST_WORDS = 5
_MAX_NAMING = 2
"""An answer longer than this many times all options together is not searched for their texts."""

# Bounded, so that a megabyte of blanks or of stars is read in one pass.
_LEADING = re.compile(r"\W{0,4}(?:(?:option|choice|answer)\W{0,4})?([A-Ja-j])(?=\W{0,4}$|\s?[.):,*\]]|\s?\n)")
_STATED = re.compile(
    r"(?:answer|option|choice)\s?(?:is|:)\s?(?:option\s)?\W{0,3}([A-J])(?![A-Za-z'’])", re.IGNORECASE
)


def label_choices(options: list[str]) -> dict[str, str]:
    """Options with their letters, from A on."""
    return dict(zip(LETTERS, options, strict=False))


def format_choices(choices: Mapping[str, str]) -> str:
    """The options as a prompt lists them: `A. first`, a line each."""
    return "\n".join(f"{letter}. {text}" for letter, text in choices.items())


def parse_scienceqa(text: str, choices: Mapping[str, str]) -> str | None:
    """As LLaVA's llava/eval/eval_science_qa.py at c121f043 (https://github.com/haotian-liu/LLaVA).

    A bare letter A to E; or a letter, a full stop and a space at the start; or exactly one `The answer is X`
    with any character after the letter. Spaces around a bare letter, brackets, and lower case are not read.

    >>> pets = {"A": "cat", "B": "dog"}
    >>> [parse_scienceqa(said, pets) for said in ("B", "B. dog", "The answer is B.", "The answer is A: cat")]
    ['B', 'B', 'B', 'A']
    >>> [parse_scienceqa(said, pets) for said in ("The answer is B", "(B)", "b", "B ", "C", "dog", "")]
    [None, None, None, None, None, None, None]
    """
    letter = text
    if text not in tuple(_SCIENCEQA_LETTERS):
        if len(text) >= 3 and text[0] in _SCIENCEQA_LETTERS and text[1:3] == ". ":
            letter = text[0]
        else:
            found = _SCIENCEQA.findall(text)
            letter = found[0] if len(found) == 1 else ""
    return letter if letter in choices else None


def parse_mmbench(text: str, choices: Mapping[str, str]) -> str | None:
    """As the exact matching of VLMEvalKit, vlmeval/utils/matching_util.py at e8e78f05
    (https://github.com/open-compass/VLMEvalKit), which then asks a language model or draws at random: neither
    here.

    The only letter that stands as a word of its own among the last five; or what `answer is X` states; or the
    only option whose text is in the answer, if that is not much longer than all options together.

    >>> pets = {"A": "cat", "B": "dog"}
    >>> [parse_mmbench(said, pets) for said in ("B", "(B) dog", "It is a dog.", "The answer is **A**, since")]
    ['B', 'B', 'B', 'A']
    >>> [parse_mmbench(said, pets) for said in ("A or B", "b", "a cat, no dog", "C", "")]
    [None, None, None, None, None]
    """
    if _MMBENCH_FAILED in text:
        return _named_option(text, choices)
    if any(refusal in text for refusal in _MMBENCH_REFUSALS):
        return None
    words = text.translate(_MMBENCH_MARKS).split()
    present = [letter for letter in choices if letter in words]
    if len(present) == 1 and words.index(present[0]) > len(words) - _MMBENCH_LAST_WORDS:
        return present[0]
    if not present and "Z" in words:
        return None
    stated = _MMBENCH_STATED.search(text)
    if stated and stated[1].upper() in choices:
        return stated[1].upper()
    return _named_option(text, choices)


def parse_strict(text: str, choices: Mapping[str, str]) -> str | None:
    """The option that a reader would take from the answer: a leading letter, the only letter that an
    `answer is X` states, or the option's text and nothing else.

    >>> pets = {"A": "cat", "B": "a dog"}
    >>> [parse_strict(said, pets) for said in ("b", "(B)", "**B** a dog", "Answer is (B)", "A dog.", "Cat")]
    ['B', 'B', 'B', 'B', 'B', 'A']
    >>> [parse_strict(said, pets) for said in ("A man", "A or B", "Answer is A. Answer is B", "C", "")]
    [None, None, None, None, None]
    """
    named = {_plain(option): letter for letter, option in choices.items()}
    if _plain(text) in named and len(named) == len(choices):
        return named[_plain(text)]
    leading = _LEADING.match(text.strip())
    stated = {match.upper() for match in _STATED.findall(text)}
    if leading:
        stated.add(leading[1].upper())
    if len(stated) != 1:
        return None
    letter = stated.pop()
    return letter if letter in choices else None


def _named_option(text: str, choices: Mapping[str, str]) -> str | None:
    if len(text) > _MAX_NAMING * sum(map(len, choices.values())):
        return None
    found = [letter for letter, option in choices.items() if option.lower() in text.lower()]
    return found[0] if len(found) == 1 else None


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
