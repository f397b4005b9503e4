"""Idefics 2 and PaliGemma: the loss is on the answers, and PaliGemma's answers do not see what follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from align.errors import AlignError
from align.models.loading import ModelSection, load_model, load_processor
from align.trainers.answer_labels import AnswerCollator, answer_collator, learnt_tokens
from tests.twins import Twins

IMAGE = Image.new("RGB", (60, 44), (200, 30, 90))
QUESTION = {"role": "user", "content": "What is this?"}


def turns(*answers: str) -> list[dict[str, str]]:
    return [turn for text in answers for turn in (QUESTION, {"role": "assistant", "content": text})]


def section(folder: Path) -> ModelSection:
    return ModelSection(path=str(folder), dtype="float32")


def collator(processor: Any, **options: Any) -> Any:
    settings = {"assistant_only_loss": True, **options}
    return answer_collator(DataCollatorForVisionLanguageModeling(processor, **settings))


@pytest.mark.parametrize("name", ["idefics2", "paligemma"])
def test_the_loss_is_on_the_answers(twins: Twins, name: str) -> None:
    processor = load_processor(section(twins(name)))
    rows = [("A cat.",), ("No, there is no dog in the kitchen.",), ("A cat.", "Two birds sit on a tree.")]
    batch = collator(processor)([{"messages": turns(*row), "images": [IMAGE]} for row in rows])
    tokenizer: Any = getattr(processor, "tokenizer")  # noqa: B009
    for labels, answers in zip(batch["labels"], rows, strict=True):
        said = tokenizer.decode(labels[labels != -100])
        # a token may hold the space before the answer
        wanted = "".join(answer + tokenizer.eos_token for answer in answers)
        assert said.replace(" ", "") == wanted.replace(" ", "")


@pytest.mark.parametrize("name", ["llava", "idefics3", "idefics2", "qwen2_5_vl"])
def test_a_turn_with_loss_false_is_read_and_not_learnt(twins: Twins, name: str) -> None:
    processor = load_processor(section(twins(name)))
    messages: list[dict[str, Any]] = turns("A cat.", "Two birds sit on a tree.", "No.")
    rows = [{"messages": turns, "images": [IMAGE]} for turns in (messages, [dict(turn) for turn in messages])]
    rows[1]["messages"][3]["loss"] = False
    whole, partial = collator(processor)(rows)["labels"]
    tokenizer: Any = getattr(processor, "tokenizer")  # noqa: B009
    said = [tokenizer.decode(labels[labels != -100]).replace(" ", "") for labels in (whole, partial)]
    end = tokenizer.eos_token
    assert "Twobirds" in said[0] and said[1].replace(end, "").rstrip() == said[0].replace(
        "Twobirdssitonatree.", ""
    ).replace(end, "")
    kept = partial != -100
    assert whole[kept].equal(partial[kept]) and int(kept.sum()) < int((whole != -100).sum())


def test_a_template_that_does_not_tell_turns_apart_is_refused() -> None:
    messages = [*turns("A cat.", "No.")[:3], {"role": "assistant", "content": "No.", "loss": False}]
    with pytest.raises(AlignError, match="1 stretches of answers for 2 assistant turns"):
        learnt_tokens([0, 1, 1, 1], messages)
    assert learnt_tokens([0, 1, 1, 0, 1], messages) == [0, 1, 1, 0, 0]


def test_a_row_that_was_cut_is_refused(twins: Twins) -> None:
    processor = load_processor(section(twins("idefics2")))
    with pytest.raises(AlignError, match="the row was cut"):
        collator(processor, max_length=12)([{"messages": turns("A cat."), "images": [IMAGE]}])


def test_paligemma_reads_the_prompt_both_ways_and_the_answer_one_way(twins: Twins) -> None:
    processor, model = load_processor(section(twins("paligemma"))), load_model(section(twins("paligemma")))
    batch = collator(processor)([{"messages": turns("A small red ball."), "images": [IMAGE]}])
    labels = batch.pop("labels")[0]
    assert batch["token_type_ids"][0].equal((labels != -100).long())
    text = processor.batch_decode(batch["input_ids"], skip_special_tokens=False)[0]  # pyright: ignore[reportAttributeAccessIssue]
    assert text.endswith("<image><bos>What is this?\nA small red ball.<eos>")
    begin = int((labels != -100).nonzero()[0])

    def changed(place: int) -> set[int]:
        """Where logits differ once the token at `place` is another one."""
        other = {**batch, "input_ids": batch["input_ids"].clone()}
        other["input_ids"][0, place] += 1
        with torch.no_grad():
            before, after = (model(**inputs).logits[0] for inputs in (batch, other))
        return set((before - after).abs().amax(dim=1).gt(1e-4).nonzero().flatten().tolist())

    last = len(labels) - 1
    assert changed(last) == {last}
    assert changed(begin - 1) >= set(range(begin - 3, last))


def test_paligemmas_pairs_are_causal_after_the_prompt(twins: Twins) -> None:
    processor: Any = load_processor(section(twins("paligemma")))
    pair = {
        "images": [IMAGE],
        "prompt": [QUESTION],
        "chosen": turns("A cat.")[1:],
        "rejected": turns("A small red ball.")[1:],
    }
    batch = DataCollatorForVisionPreference(processor)([pair])
    assert "labels" not in batch
    answer = batch["completion_mask"].bool()
    kept = batch["attention_mask"].bool()
    assert batch["token_type_ids"][answer].eq(1).all()
    assert batch["token_type_ids"][kept & ~answer].eq(0).all()
    said = [
        processor.batch_decode([row[mask]])[0] for row, mask in zip(batch["input_ids"], answer, strict=True)
    ]  # pyright: ignore[reportAttributeAccessIssue]
    assert said == ["A cat.<eos>", "A small red ball.<eos>"]


def test_a_loss_on_paligemmas_prompt_is_refused(twins: Twins) -> None:
    processor: Any = load_processor(section(twins("paligemma")))
    collate = AnswerCollator(processor)
    with pytest.raises(AlignError, match="see its own answers"):
        collate([{"messages": turns("A cat."), "images": [IMAGE]}])
