"""Replies as models write them: a verdict where one was meant, and the reason where none was."""

from __future__ import annotations

import pytest

from align.judging.replies import PLACES, read_choice, read_yes_no, settled
from align.rows.thoughts import opens_thoughts

BOTH = "names both"
CUT = "cut off"


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        *[
            (text, "first")
            for text in ("A", "a.", "Answer: A", "Option A", "**A**", "(A)", "[[A]]", "Ａ", "Answer A.")
        ],
        *[
            (text, "second")
            for text in ("B", "Final answer: B", "My choice: **Option B**", r"\boxed{B}", "答案：Ｂ")
        ],
        *[
            (text, "tie")
            for text in ("C", "Answer C", "C - both are the same", "Tie", "It's a tie.", "Neither is better")
        ],
        *[(text, "tie") for text in ("Both are equally good.", "neither A nor B", "平局", "两个一样好")],
        ("A, because it is right", "first"),
        ("A, because B invents a cat.", "first"),
        ("A\n\nExplanation: A names the dog, while B invents a cat.", "first"),
        ("Response B is better because response A invents a cat.", "second"),
        ("I prefer A.", "first"),
        ("I would go with B because it is true", "second"),
        ("The better answer is B.", "second"),
        ('{"answer": "A"}', "first"),
        ('```json\n{"reason": "A lies", "better": "B"}\n```', "second"),
        ("<answer>B</answer>", "second"),
        ("<think>A or B? I say A</think>\nB", "second"),
        ("A names two dogs.</think>B", "second"),
        ("Answer A invents a cat. Answer B does not.\n\nB", "second"),
        ("A says two dogs. B says three. There are two.\nAnswer: A", "first"),
        ("选A", "first"),
        ("答案B更好", "second"),
        *[
            (text, BOTH)
            for text in ("A or B", "A and B", "A/B", "A, B", "A is better than B", "A. No, B.", "A>B")
        ],
        ("A is better in detail, B in accuracy", BOTH),
        *[(text, "hedged") for text in ("Maybe A", "Probably A", "A?", "It depends", "I can't say")],
        *[(text, "negation") for text in ("not A", "I don't prefer A", "A is not better")],
        *[
            (text, "none of the verdicts")
            for text in ("Apple", "A fine answer", "A dog is seen in both.", "", "1")
        ],
        ("Both have their merits.", "none of the verdicts"),
        ("<think>A is", CUT),
    ],
)
def test_a_choice_of_two(reply: str, choice: str) -> None:
    read = read_choice(reply)
    if choice in ("first", "second", "tie"):
        assert (read.verdict, read.reason) == (choice, "")
    else:
        assert read.verdict is None and choice in read.reason


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ("First.", "first"),
        ("The second answer", "second"),
        ("I prefer the first", "first"),
        ("The second answer is better.", "second"),
        ("tie", "tie"),
        ("first or second", None),
        ("not first", None),
        ("A", None),
    ],
)
def test_a_choice_in_the_words_of_the_prompt(reply: str, choice: str | None) -> None:
    assert read_choice(reply, PLACES).verdict == choice


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        *[
            (text, True)
            for text in ("Yes", "yes.", "**Yes**", "Yes, because", "YES!", "Yes (100%)", "是", "是的", "有")
        ],
        *[
            (text, False)
            for text in ("No.", "No, there isn't", "否", "不是", "没有", "否，图中没有狗", "Nein")
        ],
        ("<think>no, no</think>Yes", True),
        ("There are two dogs.\nYes", True),
        ("The answer is no.", False),
        ("Final answer: **No**", False),
        ('{"answer": "yes"}', True),
        ('{"present": false}', False),
        ("Yes, there is no cat", True),
        *[
            (text, None)
            for text in ("Yes and no", "yes/no", "No, yes", "Yes?", "No idea", "Not sure", "Maybe yes")
        ],
        *[
            (text, None)
            for text in ("There is a dog", "Yesterday", "N/A", "", "不确定", "没法看清", "是否", "<think>Yes")
        ],
        ("It is not possible to say yes", None),
    ],
)
def test_yes_or_no(reply: str, verdict: bool | None) -> None:
    read = read_yes_no(reply)
    assert read.verdict is verdict and bool(read.reason) is (verdict is None)


def test_thoughts_end_at_their_last_mark() -> None:
    assert settled("<think>a</think>b<thinking>c</thinking> d").verdict == "d"
    assert settled("[THINK]a[/THINK]b").verdict == settled("◁think▷a◁/think▷b").verdict == "b"
    assert settled("a <think> b").verdict is None and settled("</think>  ").verdict is None
    assert opens_thoughts("<th") and opens_thoughts("<think>Hm") and not opens_thoughts("Yes")
