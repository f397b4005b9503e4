"""A row whose template knows thoughts is trained on as it is served: token for token, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trl
from PIL import Image
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from align.errors import AlignError
from align.inputs.chat import render
from align.inputs.row_checks import row_texts
from align.inputs.text_rows import text_dataset
from align.inputs.trained_text import learnt_words, thinks_in_vain, trained_text
from align.models.thinking import set_thinking
from align.rows.messages import Message
from align.rows.schema import PreferenceRow, SFTRow, read_rows, write_rows
from align.trainers.answer_labels import answer_collator
from align.trainers.pair_collator import texts_of
from align.trainers.sft_collator import SharedImageCollator
from tests.twins.qwen import qwen3_vl
from tests.twins.templates import QWEN_VL
from tests.twins.thinking import ENDS, TEMPLATES, set_template

USER = {"role": "user", "content": "How many?"}
BARE = {"role": "assistant", "content": "Two."}
INLINE = {"role": "assistant", "content": "<think>One, two.</think>\n\nTwo."}
KEYED = {"role": "assistant", "content": "Two.", "reasoning_content": "One, two."}
# What follows the served prompt: (thinking, has thoughts) -> text, and what of it is learnt.
ANSWERS = {
    "qwen3_5": {
        (False, False): ("Two.<|im_end|>", "Two.<|im_end|>"),
        (False, True): ("Two.<|im_end|>", "Two.<|im_end|>"),
        (True, True): ("One, two.\n</think>\n\nTwo.<|im_end|>", "One, two.\n</think>\n\nTwo.<|im_end|>"),
        (True, False): ("\n</think>\n\nTwo.<|im_end|>", "Two.<|im_end|>"),
    },
    "glm4_6v": {
        (False, False): ("\nTwo.<|user|>", "\nTwo.<|user|>"),
        (False, True): ("\nTwo.<|user|>", "\nTwo.<|user|>"),
        (True, True): (
            "\n<think>One, two.</think>\nTwo.<|user|>",
            "\n<think>One, two.</think>\nTwo.<|user|>",
        ),
        (True, False): ("\n<think></think>\nTwo.<|user|>", "Two.<|user|>"),
    },
    "gemma4": {
        (False, False): ("Two.<turn|>", "Two.<turn|>"),
        (False, True): ("Two.<turn|>", "Two.<turn|>"),
        (True, True): (
            "<|channel>thought\nOne, two.\n<channel|>Two.<turn|>",
            "<|channel>thought\nOne, two.\n<channel|>Two.<turn|>",
        ),
        (True, False): ("Two.<turn|>", "Two.<turn|>"),
    },
}
CASES = [
    (family, thinking, turn)
    for family in TEMPLATES
    for thinking in (False, True)
    for turn in (BARE, INLINE, KEYED)
]


def processor_of(family: str, thinking: bool | None) -> Any:
    processor = qwen3_vl().processor
    set_template(processor, family)
    set_thinking(processor, thinking)
    return processor


def picture(number: int = 0) -> Image.Image:
    return Image.new("RGB", (64, 48), (number * 40, 90, 20))


def collators(processor: Any) -> list[Any]:
    separate = answer_collator(DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True))
    return [separate, SharedImageCollator(separate)]


def rows_of(batch: Any) -> list[tuple[list[int], list[int]]]:
    found = []
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        kept = mask.bool()
        found.append((ids[kept].tolist(), labels[kept].tolist()))
    return found


@pytest.mark.parametrize(("family", "thinking", "turn"), CASES)
def test_an_instruction_row_is_the_served_prompt_and_its_answer(
    family: str, thinking: bool, turn: dict[str, str]
) -> None:
    processor = processor_of(family, thinking)
    answer, learnt = ANSWERS[family][thinking, turn is not BARE]
    asked = render(processor, [Message.model_validate(USER)], 1, add_generation_prompt=True)
    tokenizer = processor.tokenizer
    prompt = processor(text=[asked], images=[[picture()]], add_special_tokens=False)["input_ids"][0]
    said = tokenizer(answer, add_special_tokens=False)["input_ids"]
    examples = [{"messages": [USER, one], "images": [picture()]} for one in (turn, turn)]
    for collate in collators(processor):
        for ids, labels in rows_of(collate([dict(example) for example in examples])):
            assert ids == [*prompt, *said]
            assert tokenizer.decode([label for label in labels if label != -100]) == learnt
            assert labels[-1] == tokenizer.convert_tokens_to_ids(ENDS[family])
            assert ids.count(tokenizer.convert_tokens_to_ids("<bos>")) == (family == "gemma4")


@pytest.mark.parametrize(("family", "thinking", "turn"), CASES)
def test_a_pair_is_the_served_prompt_and_its_answers(
    family: str, thinking: bool, turn: dict[str, str]
) -> None:
    processor = processor_of(family, thinking)
    worse = {"role": "assistant", "content": "Three."}
    answer, _ = ANSWERS[family][thinking, turn is not BARE]
    row = PreferenceRow.model_validate(
        {"id": "1", "images": ["a.png"], "prompt": [USER], "chosen": [turn], "rejected": [worse]}
    )
    asked = render(processor, row.prompt, 1, add_generation_prompt=True)
    other = ANSWERS[family][thinking, False][0].replace("Two", "Three")
    assert row_texts(processor, row) == [(asked, answer), (asked, other)]
    example = {"prompt": [USER], "chosen": [turn], "rejected": [worse]}
    assert texts_of(processor, example, [picture()]) == {"prompt": asked, "chosen": answer, "rejected": other}


@pytest.mark.parametrize("family", TEMPLATES)
def test_earlier_answers_are_learnt_as_the_prompt_has_them(family: str) -> None:
    processor = processor_of(family, None)
    end = ENDS[family]
    turns: list[dict[str, Any]] = [
        USER,
        {**INLINE, "content": "<think>x</think>Two."},
        {"role": "user", "content": "Sure?"},
        BARE,
    ]
    for collate in collators(processor):
        for loss, wanted in ((True, f"Two.{end}"), (False, "")):
            turns[1]["loss"] = loss
            batch = collate([{"messages": [dict(turn) for turn in turns], "images": [picture()]}])
            ((_, labels),) = rows_of(batch)
            said = processor.tokenizer.decode([label for label in labels if label != -100])
            assert re.sub(r"\s", "", said) == f"{wanted}Two.{end}"


@pytest.mark.parametrize("family", TEMPLATES)
def test_rows_of_several_pictures_share_and_stay_apart(family: str) -> None:
    """Two questions on one picture, one on another, one without: what both collators make is the same."""
    processor = processor_of(family, True)
    separate, shared = collators(processor)
    one, two = picture(1), picture(2)
    rows = [([USER, KEYED], [one]), ([{**USER, "content": "What?"}, BARE], [one]), ([USER, BARE], [two])]
    examples = [{"messages": messages, "images": images} for messages, images in rows]
    assert sorted(rows_of(shared(examples))) == sorted(rows_of(separate([dict(row) for row in examples])))


def test_thoughts_in_vain_are_known() -> None:
    off, on = processor_of("qwen3_5", None), processor_of("qwen3_5", True)
    inline, keyed, bare = ([Message.model_validate(turn)] for turn in (INLINE, KEYED, BARE))
    assert [thinks_in_vain(off, turns) for turns in (inline, keyed, bare)] == [True, True, False]
    assert not thinks_in_vain(on, inline)
    assert learnt_words(on, [Message.model_validate(USER), *keyed], 0).split() == [
        "One,",
        "two.",
        "</think>",
        "Two.",
    ]


def test_what_cannot_be_read_rightly_is_refused() -> None:
    processor = processor_of("qwen3_5", True)
    ask = Message.model_validate(USER)
    with pytest.raises(AlignError, match="the thoughts of an answer do not end"):
        trained_text(processor, [ask, Message(role="assistant", content="<think>One")], 0)
    processor.chat_template = processor.chat_template.replace("+ thoughts +", "+")
    with pytest.raises(AlignError, match="leaves the thoughts of this answer out"):
        trained_text(processor, [ask, Message.model_validate(KEYED)], 0)
    processor.chat_template = QWEN_VL.template()
    set_thinking(processor, None)
    with pytest.raises(AlignError, match="no place for thoughts"):
        render(processor, [ask, Message.model_validate(KEYED)], 0, add_generation_prompt=False)
    whole = render(processor, [ask, Message.model_validate(INLINE)], 0, add_generation_prompt=False)
    assert INLINE["content"] in whole  # such a template's answers are their text
    with pytest.raises(ValueError, match="only an assistant thinks"):
        Message.model_validate({**USER, "reasoning": "hm"})


@pytest.mark.parametrize(
    "name", ["qwen3", "qwen3_5_think", "qwen3_5_nothink", "qwen3_6", "qwen3_8", "glm4moe", "gemma4_v5"]
)
@pytest.mark.parametrize("thinking", [None, True])
def test_published_templates(name: str, thinking: bool | None) -> None:
    """Those that TRL ships as published: a row is the served prompt and what the server would say."""
    processor: Any = qwen3_vl().processor.tokenizer
    processor.chat_template = (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()
    processor.bos_token = "<bos>"
    set_thinking(processor, thinking)
    turns = [Message.model_validate(USER), Message.model_validate(KEYED)]
    text = trained_text(processor, turns, 0)
    assert text.prompt == render(processor, turns[:1], 0, add_generation_prompt=True)
    said = learnt_words(processor, turns, 0)
    assert ("One, two." in said) == bool(thinking) and "Two." in said
    ((start, end),) = text.learnt
    assert (start, end) == (len(text.prompt), len(text.prompt + text.answer))
    plain = trained_text(processor, [turns[0], Message.model_validate(BARE)], 0)
    assert "think" not in (plain.prompt + plain.answer)[slice(*plain.learnt[0])]


def test_reasoning_is_written_and_read(tmp_path: Path) -> None:
    rows = [
        SFTRow.model_validate({"id": str(k), "messages": [USER, turn]})
        for k, turn in enumerate((BARE, {**BARE, "loss": True}, KEYED))
    ]
    for suffix in ("jsonl", "parquet"):
        write_rows(tmp_path / f"rows.{suffix}", rows)
        assert list(read_rows(SFTRow, tmp_path / f"rows.{suffix}")) == rows
    write_rows(tmp_path / "plain.parquet", rows[:2])
    assert b"reasoning" not in (tmp_path / "plain.parquet").read_bytes()


def test_a_text_only_row_is_labelled_as_served() -> None:
    tokenizer = qwen3_vl().tokenizer
    set_template(tokenizer, "qwen3_5")
    row = SFTRow.model_validate({"id": "1", "messages": [USER, BARE]})
    data = text_dataset([row], [row_texts(tokenizer, row)], tokenizer)
    asked = render(tokenizer, row.messages[:1], 0, add_generation_prompt=True)
    prompt, said = (tokenizer(text)["input_ids"] for text in (asked, "Two.<|im_end|>"))
    assert data[0]["input_ids"] == prompt + said and data[0]["labels"] == [-100] * len(prompt) + said
