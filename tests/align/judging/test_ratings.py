"""Ratings as models write them, and never a number that was not meant."""

from __future__ import annotations

import pytest

from align.judging.ratings import is_chinese, read_number, read_ratings

SIDES = ("accuracy", "completeness", "relevance")


@pytest.mark.parametrize(
    ("said", "number"),
    [
        *[
            (text, 5)
            for text in (
                "5",
                "5 (all true)",
                "5 - fine",
                "5 points",
                "5 out of 5",
                "5/5",
                "５",
                "**5**",
                "<5>",
            )
        ],
        *[
            (text, 5)
            for text in (
                "(5)",
                "5 because 2 dogs",
                "5. All 3 are there",
                "5 of 5 points",
                "five",
                "5!",
                "5.0",
            )
        ],
        *[(text, 5) for text in ("Excellent (5/5)", "I give 5", "score: 5", "5 – perfect", "5分", "+5")],
        *[(text, 4) for text in ("4 (not 5)", "4/5 (one of 3 is wrong)", "★★★★☆")],
        *[(text, 4.5) for text in ("4.5", "4.5/5", "4½")],
        *[(text, "out of range: accuracy") for text in ("-5", "- 5", "−5", "7", "0", "100", "6/5", "0.5")],
        *[
            (text, "two numbers: accuracy")
            for text in ("4-5", "4 – 5", "4 or 5", "4 to 5", "<1 to 5>", "4,5", "5 → 4")
        ],
        *[(text, "two numbers: accuracy") for text in ("4/5/5", "5 - 3 dogs", "4 1/2", "4..5")],
        *[
            (text, "hedged: accuracy")
            for text in ("not 5", "about 4", "~4", "4+", "5?", "at least 4", "5, maybe 4")
        ],
        *[(text, "another scale: accuracy") for text in ("8/10", "5 out of 10", "80%")],
        *[
            (text, "no rating: accuracy")
            for text in ("3 dogs are named", "N/A", "high", "4th", "fünf", "一般")
        ],
        ("五", "a Chinese number word, and the prompt is not Chinese: accuracy"),
    ],
)
def test_what_stands_behind_the_name(said: str, number: float | str) -> None:
    read = read_ratings(f"accuracy: {said}\ncompleteness: 4\nrelevance: 3", SIDES)
    if isinstance(number, str):
        assert read.verdict is None and read.reason.startswith(number)
    else:
        assert read.verdict == {"accuracy": number, "completeness": 4, "relevance": 3}
        assert read.verdict is not None and isinstance(read.verdict["accuracy"], type(number))


@pytest.mark.parametrize(
    "reply",
    [
        "1. Accuracy: 5\n2. Completeness: 4\n3. Relevance: 3",
        "(1) Accuracy - 5\n(2) Completeness - 4\n(3) Relevance - 3",
        "Accuracy (1-5): 5\nCompleteness (1 to 5): 4\nRelevance (out of 5): 3",
        "Accuracy (5): all true\nCompleteness (4/5): a cat is missing\nRelevance (3): so so",
        "Accuracy: 5, Completeness: 4, Relevance: 3",
        "accuracy: 5 completeness: 4 relevance: 3",
        "Accuracy：5／5，Completeness：4／5，Relevance：3／5",
        "I rate accuracy 5, completeness 4 and relevance 3.",
        '{"accuracy": 5, "completeness": 4, "relevance": 3}',
        "{'accuracy': 5, 'completeness': 4, 'relevance': 3}",
        '```json\n{"ratings": {"accuracy": {"reason": "3 dogs", "score": 5}, '
        '"completeness": "4/5", "relevance": 3}}\n```',
        '[{"name": "accuracy", "score": 5}, {"name": "completeness", "score": 4}, '
        '{"name": "relevance", "score": 3}]',
        "| Accuracy | Completeness | Relevance |\n|---|---|---|\n| 5 | 4 | 3 |",
        "| accuracy | 5 |\n| completeness | 4 |\n| relevance | 3 |",
        "**Accuracy**\n5/5 – all true\n\n**Completeness**\n4\n\n**Relevance**\n3",
        "## Accuracy\nThe 3 dogs are there.\nScore: 5\n## Completeness\nScore: 4\n## Relevance\nScore: 3",
        "<accuracy>5</accuracy><completeness>4</completeness><relevance>3</relevance>",
        "准确性：5\n完整性：4分\n相关性：3",
        "relevance: 3\naccuracy: 5\ncompleteness: 4\n\nOverall: 2",
        "It names 3 dogs and 2 cats; 4 of 5 claims hold.\n\naccuracy: 5\ncompleteness: 4\nrelevance: 3",
        "Accuracy: I see 3 dogs.\nCompleteness: could be 2?\n\naccuracy: 5\ncompleteness: 4\nrelevance: 3",
        "<think>accuracy: 1\n2\n3</think>accuracy: 5\ncompleteness: 4\nrelevance: 3",
        "accuracy: 1\ncompleteness: 1\nrelevance: 1\n\nFinal:\naccuracy: 5\ncompleteness: 4\nrelevance: 3",
        "Accuracy: 5\nWhy: 2 dogs.\nCompleteness: 4\nWhy: 1 cat.\nRelevance: 3\nWhy: 1",
    ],
)
def test_the_forms_of_three_ratings(reply: str) -> None:
    assert read_ratings(reply, SIDES).verdict == {"accuracy": 5, "completeness": 4, "relevance": 3}


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("accuracy: 4\ncompleteness: 4\nrelevance: 4\naccuracy: 1", "two numbers: accuracy 4 and 1"),
        (
            "accuracy: 1\ncompleteness: 1\nrelevance: 1\naccuracy: 5\ncompleteness: 1\nrelevance: 1",
            "two numbers",
        ),
        ('{"accuracy": 5, "accuracy": 4, "completeness": 4, "relevance": 3}', "two numbers: accuracy 5, 4"),
        ('{"accuracy": -5, "completeness": 4, "relevance": 3}', "out of range: accuracy -5"),
        ('{"accuracy": true, "completeness": 4, "relevance": 3}', "no number: accuracy"),
        ("Accuracy -5\nCompleteness -4\nRelevance -3", "out of range: accuracy -5"),
        ("accuracy: 5\ncompleteness: 4", "no rating: relevance"),
        ("5\n4\n3", "the judge's reply is none of the verdicts"),
        ("A fine answer, 5 of 5.", "the judge's reply is none of the verdicts"),
        ("", "the judge's reply is none of the verdicts"),
        ("<think>accuracy: 5\ncompleteness: 5\nrelevance: 5", "the judge's reply was cut off"),
    ],
)
def test_what_is_no_rating_has_its_reason(reply: str, reason: str) -> None:
    read = read_ratings(reply, SIDES)
    assert read.verdict is None and read.reason.startswith(reason)


def test_chinese_number_words_are_read_where_the_prompt_is_chinese() -> None:
    def numbers(reply: str) -> list[float] | None:
        read = read_ratings(reply, SIDES, chinese=is_chinese("请打分：{conversation}"))
        return None if read.verdict is None else list(read.verdict.values())

    assert numbers("准确性：五\n完整性：四分\n相关性：三点五") == [5, 4, 3.5]
    assert numbers("准确性：五分\n完整性：四分半\n相关性：二") == [5, 4.5, 2]
    assert numbers("准确性：七\n完整性：四\n相关性：二") is None


def test_one_number() -> None:
    replies = ("8", "Rating: 7/10", "8 - fine", "I see 3 dogs.\nScore: 8", "-8", "7 or 8", "11", "not 8")
    assert [read_number(text, (1, 10)).verdict for text in replies] == [8, 7, 8, 8, None, None, None, None]
