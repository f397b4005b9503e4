"""Words, sentences and commas in scripts with and without spaces."""

from __future__ import annotations

import pytest

from align.rows.words import count_words, is_latin, words_of
from data_tools.material.answer_style import FEATURES, whole_style_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's a cat, isn't it?", ["it", "s", "a", "cat", "isn", "t", "it"]),
        ("两只猫。", ["两", "只", "猫"]),
        ("ねこが2匹", ["ね", "こ", "が", "2", "匹"]),
        ("แมว", ["แ", "ม", "ว"]),
        ("ที่", ["ที่"]),  # the marks stay on their letter
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("고양이 두 마리", ["고양이", "두", "마리"]),
        ("قطة سوداء", ["قطة", "سوداء"]),
        ("ＡＩ模型", ["ai", "模", "型"]),
        ("Cafe\u0301", ["café"]),
        ("...", []),
    ],
)
def test_words_by_hand(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_lengths_in_scripts_with_spaces_are_the_pieces_between_them() -> None:
    assert [count_words(text) for text in ("It's a cat.", "고양이 두 마리", "一只 猫", "")] == [3, 3, 3, 0]
    assert is_latin("Où ?") and is_latin("12") and not is_latin("一只 cat 猫狗鸟") and not is_latin("कुत्ता")


def test_style_by_hand() -> None:
    found = dict(zip(FEATURES, whole_style_of("# 猫\n1. 一只猫，可能。\n2. **A** dog"), strict=True))
    assert found["sentences"] == 3.0  # the numbers of list lines end sentences too
    assert (found["line_breaks"], found["list_lines"], found["markup"]) == (2.0, 2.0, 3.0)
    assert found["ends_in_a_stop"] == 0.0 and found["hedges"] > 0
