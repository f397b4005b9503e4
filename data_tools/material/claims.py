"""Claims: the atomic statements of an answer, the question that checks each, and how the reply is read.

After RLAIF-V (Yu et al. 2024, arXiv 2405.17220, section 3.2, "divide and conquer"): an answer is split
into atomic claims, each is asked as a yes/no question, and the answer's score is minus the number of
claims that are denied (p_no > p_yes). Here a claim is the presence of one COCO object; `align.claims` finds
what else is said of it, `claim_questions` asks about that, and `claim_scores` scores it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from align.objects.mentions import Mode, find_objects
from align.objects.plurals import with_article
from align.rows.schema import Claim

DEFAULT_QUESTION = "Is there {object} in the image?\nAnswer the question using a single word or phrase."


def split_objects(text: str, mode: Mode) -> list[str]:
    """The distinct COCO objects that a text says are there, in order of mention.

    >>> split_objects("A dog, two dogs and a cat", "strict")
    ['dog', 'cat']
    """
    return list(dict.fromkeys(mention.category for mention in find_objects(text, mode)))


def ask_about(category: str, template: str) -> str:
    """The question that checks one claim; `{object}` becomes the name with its article.

    >>> ask_about("apple", "Is there {object} in the image?")
    'Is there an apple in the image?'
    """
    return template.replace("{object}", with_article(category))


def read_yes_no(first_logprobs: Mapping[str, float]) -> tuple[float, float] | None:
    """(p_yes, p_no) of the reply's first token, each summed over spellings (`Yes`, ` yes`, `YES`).

    None when neither word is among the listed alternatives: such a claim is unscored. A word that
    is not listed has probability 0; it is at most that of the last listed one. A judge that rather answers in
    Chinese is read in Chinese.
    """
    english, chinese = _sums(first_logprobs, ("yes", "no")), _sums(first_logprobs, ("是", "否"))
    sums = chinese if sum(chinese) > sum(english) else english
    return None if not any(sums) else (min(sums[0], 1.0), min(sums[1], 1.0))


def _sums(first_logprobs: Mapping[str, float], words: tuple[str, str]) -> tuple[float, float]:
    found = dict.fromkeys(words, 0.0)
    for spelling, logprob in first_logprobs.items():
        word = spelling.strip().lower()
        if word in found:
            found[word] += math.exp(logprob)
    return found[words[0]], found[words[1]]


def score_claims(claims: Sequence[Claim]) -> tuple[float | None, str]:
    """An answer's score and, where it has none, the reason.

    The score is minus the number of denied claims, so 0 is the best. An answer with an unscored
    claim is unscored, and so is one without claims: nothing in it was checked, and calling it
    faultless would reward saying nothing.
    """
    if not claims:
        return None, "no claim to check"
    for claim in claims:
        if claim.supported is None:
            return None, f"claim {claim.text!r}: the reply is neither yes nor no"
    return float(-sum(claim.supported is False for claim in claims)), ""
