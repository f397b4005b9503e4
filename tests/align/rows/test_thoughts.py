"""Thoughts are told from the answer in every spelling, and rows keep them apart."""

from __future__ import annotations

import pytest

from align.rows.schema import Candidate, Message, Prediction
from align.rows.thoughts import Said, opens_thoughts, split_thoughts

WHOLE = {
    "qwen": "<think>\nhm\n</think>\n\nYes",
    "template opened it": "hm\n</think>\n\nYes",
    "tags in capitals": "<THINK>hm</THINK>Yes",
    "seed": "<seed:think>hm</seed:think>Yes",
    "minimax": "<mm:think>hm</mm:think>\nYes",
    "mistral": "[THINK]hm[/THINK]Yes",
    "kimi-vl": "◁think▷hm◁/think▷Yes",
    "kimi k3": "<|open|>think<|sep|>hm<|close|>think<|sep|><|open|>response<|sep|>Yes<|close|>response",
    "gemma 4": "<|channel>thought\nhm<channel|>Yes<turn|>",
    "gpt-oss": "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Yes",
    "gpt-oss without special tokens": "analysishmassistantfinalYes",
    "muse": "to=self<|message|>hm<|eom|><|start|>assistant to=user<|message|>Yes<|eot|>",
    "cohere": "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>Yes<|END_RESPONSE|>",
    "openthinker": "<|begin_of_thought|>hm<|end_of_thought|>\n<|begin_of_solution|>Yes<|end_of_solution|>",
    "granite": "Here is my thought process:hm Here is my response: Yes",
    "glm's box": "<think>hm</think>\n<|begin_of_box|>Yes<|end_of_box|>",
    "answer tag": "<think>hm</think><answer>Yes</answer>",
    "a word's tag": "<reasoning>hm</reasoning>\nYes",
    "llava-cot": "<REASONING>hm</REASONING>\n<CONCLUSION>Yes</CONCLUSION>",
}


@pytest.mark.parametrize("text", WHOLE.values(), ids=WHOLE)
def test_a_whole_block_of_each_spelling(text: str) -> None:
    assert split_thoughts(text) == Said("hm", "Yes", is_marked=True)


@pytest.mark.parametrize(
    "text",
    [
        "<think>h",
        "\n<thinking>h",
        "[THINK]h",
        "◁think▷h",
        "<|channel>thought\nh",
        "<reasoning>h",
        "a</think><think>h",
    ],
)
def test_an_unclosed_block_is_no_answer(text: str) -> None:
    said = split_thoughts(text)
    assert (said.answer, said.is_closed, said.reasoning[-1]) == ("", False, "h")


def test_an_empty_block_is_no_thought() -> None:
    for text in ("<think>\n\n</think>\n\nYes", "<think></think>\nYes", "<|channel>thought\n<channel|>Yes"):
        assert split_thoughts(text) == Said("", "Yes", is_marked=True)
    assert split_thoughts("thought\nYes") == Said("", "Yes", is_marked=True)  # Gemma 4's label alone


@pytest.mark.parametrize(
    "text",
    [
        "",
        " Yes.\n",
        "The sign reads <analysis> in red.",
        "<caption>A dog</caption>",
        "`<think>` opens a thought and `</think>` ends it.",
        "I think so.",
        "analysis of the picture",
        "thoughts\nof a dog",
        "<|object_ref_start|>dog<|object_ref_end|>",
    ],
)
def test_what_is_no_thought_stays_to_the_byte(text: str) -> None:
    assert split_thoughts(text) == Said("", text)


def test_the_answer_stands_behind_the_last_mark() -> None:
    assert split_thoughts("<think>a</think>b<think>c</think>d") == Said("a\nb\nc", "d", is_marked=True)
    assert split_thoughts("<think>a</think>") == Said("a", "", is_marked=True)


def test_the_first_piece_of_a_mark_opens_thoughts() -> None:
    pieces = ("<", "<th", "<think>", " <think>\nHm", "[THINK", "<|channel", "<|channel>thought", "◁")
    assert all(map(opens_thoughts, pieces))
    assert not any(map(opens_thoughts, ("", "Yes", "think", "<b>")))


def test_rows_keep_thoughts_beside_the_answer() -> None:
    """Twelve characters of thoughts, three of answer: a fifth of ten tokens."""
    row = Prediction(key="k", task="t", sample_id="1", text="<think>hm, hm, hmmm</think>Yes", num_tokens=10)
    assert (row.text, row.reasoning, row.num_tokens, row.unclosed) == ("Yes", "hm, hm, hmmm", 2, False)
    assert Prediction.model_validate(row.model_dump()) == row
    plain = Prediction(key="k", task="t", sample_id="1", text="Yes", num_tokens=10)
    assert "reasoning" not in plain.model_dump() and "unclosed" not in plain.model_dump_json()
    cut = Candidate(
        id="1#0",
        prompt_id="1",
        prompt=[Message(role="user", content="?")],
        text="<think>hm",
        finish_reason="stop",
        num_tokens=9,
    )
    assert (cut.text, cut.unclosed, cut.finish_reason, cut.num_tokens) == ("", True, "length", 0)
