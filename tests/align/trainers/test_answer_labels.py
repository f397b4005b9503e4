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
from align.trainers.answer_labels import AnswerCollator, answer_collator
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


def test_other_families_keep_trls_collator(twins: Twins) -> None:
    processor = load_processor(section(twins("idefics3")))
    assert type(collator(processor)) is DataCollatorForVisionLanguageModeling


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
