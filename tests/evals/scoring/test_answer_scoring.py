"""How one answer is scored: published vectors, and what no answer may break."""

from __future__ import annotations

import pytest

from align.scoring.normalise import normalise_evalai
from evals.scoring.anls import anls, levenshtein
from evals.scoring.choices import parse_mmbench, parse_scienceqa, parse_strict
from evals.scoring.graders import GRADERS, grade_evalai, grade_gqa
from evals.scoring.relaxed import relaxed_match

PETS = {"A": "a cat", "B": "a dog", "C": "a bus"}


@pytest.mark.parametrize(
    ("answer", "truth", "official", "strict"),
    [
        ("helo", "hello", 0.8, 0.8),
        ("he", "hello", 0.0, 0.0),
        ("1980", "1979", 0.5, 0.5),
        ("  HELLO ", "hello", 1.0, 1.0),
        ("helo     ", "hello", 1 - 1 / 9, 0.8),  # official divides by the padded length
        ("", "hello", 0.0, 0.0),
        ("two  words", "two words", 1.0, 1.0),
    ],
)
def test_anls(answer: str, truth: str, official: float, strict: float) -> None:
    assert anls(answer, [truth]) == pytest.approx(official)
    assert anls(answer, [truth, "x"], "strict") == pytest.approx(strict)


def test_levenshtein_is_a_distance() -> None:
    assert [levenshtein(*pair) for pair in (("flaw", "lawn"), ("", "ab"), ("ab", "ab"))] == [2, 2, 0]
    assert levenshtein("saturday", "sunday") == levenshtein("sunday", "saturday") == 3


@pytest.mark.parametrize(
    ("target", "answer", "official", "strict"),
    [
        ("100", "105", True, True),
        ("100", "105.01", False, False),
        ("1", "1.05", False, True),  # in binary a hair over 5 %
        ("0", "0.0", False, True),
        ("0", "0", True, True),
        ("5%", "0.05", True, False),  # without the signs, 5 against 0.05
        ("50", "50%", False, True),
        ("2015", "1920", True, False),
        ("2015", "2015", True, True),
        ("1000", "$1,000.", False, True),
        ("Red", "red", True, True),
        ("red", "red.", False, True),
        ("7", "seven", False, False),
        ("7", "", False, False),
        ("inf", "inf", False, True),
        ("7", "nan", False, False),
    ],
)
def test_relaxed(target: str, answer: str, official: bool, strict: bool) -> None:
    assert relaxed_match(target, answer) is official
    assert relaxed_match(target, answer, "strict") is strict


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("A red, bus.", "red bus"),
        ("1,000", "1000"),
        ("it's", "it 's"),
        ("What?ever", "whatever"),
        ("\tThe\nU.S.A. ", "usa"),
        ("dont", "don't"),
    ],
)
def test_evalai_normaliser(answer: str, normal: str) -> None:
    assert normalise_evalai(answer) == normal


def test_textvqa_has_no_gate_for_annotators_that_agree() -> None:
    assert grade_evalai(["yes"] * 10, "Yes").official == 1.0
    assert grade_evalai(["3"] * 2 + ["x"] * 8, "Three").official == pytest.approx(0.6)
    empty = grade_evalai(["the"] * 10, " ")
    assert (empty.official, empty.strict, empty.unparsed) == (1.0, 0.0, True)


@pytest.mark.parametrize(
    ("answer", "official", "strict"),
    [("Yes.", 1, 1), ("yes", 1, 1), ("Yes. ", 0, 1), ("yes!", 0, 1), ("no", 0, 0), ("", 0, 0)],
)
def test_gqa(answer: str, official: float, strict: float) -> None:
    grade = grade_gqa(["yes"], answer)
    assert (grade.official, grade.strict, grade.unparsed) == (official, strict, not answer)


@pytest.mark.parametrize(
    ("answer", "scienceqa", "mmbench", "strict"),
    [
        ("B", "B", "B", "B"),
        ("B. a dog", "B", "B", "B"),
        ("The answer is B.", "B", "B", "B"),
        ("The answer is B", None, "B", "B"),
        ("(B)", None, "B", "B"),
        ("b", None, None, "B"),
        ("D", None, None, None),
        ("A dog", None, "A", "B"),  # upstream reads the article as option A
        ("It is a dog.", None, "B", None),
        ("A or B", None, None, None),
        ("B because the animal in it has a tail and barks", None, None, None),
        ("Cannot determine the answer", None, None, None),
        ("", None, None, None),
        ("<script>alert(1)</script>", None, None, None),
    ],
)
def test_choices_are_read_or_unparsed_never_guessed(
    answer: str, scienceqa: str | None, mmbench: str | None, strict: str | None
) -> None:
    assert parse_scienceqa(answer, PETS) == scienceqa
    assert parse_mmbench(answer, PETS) == mmbench
    assert parse_strict(answer, PETS) == strict


@pytest.mark.parametrize("metric", GRADERS)
@pytest.mark.parametrize("text", ["", " \n", "<script>", "\ud800\ufffd", "9" * 10**6, "a, " * 300_000])
def test_no_answer_breaks_a_grader(metric: str, text: str) -> None:
    grade = GRADERS[metric](["hello", "9"], text)
    # Blanks against a text of one character: ANLS as published divides by the blanks, too, and gives 0.5.
    assert grade.official in ((0.0, 0.5) if metric == "anls" else (0.0, 1.0))
    assert grade.strict == 0.0 or (grade.strict == 1.0 and not grade.unparsed)
    assert grade.unparsed or text.strip()
