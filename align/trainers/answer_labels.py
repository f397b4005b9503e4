"""The loss on the answers that are to be learnt, also where a processor grows the text without telling where.

A turn with `loss: false` is read and not learnt: its tokens' labels are taken out.

TRL's collator asks transformers for the assistant's tokens. Those are found by character, shifted by what
the processor says it put in for the images; Idefics 2's says nothing, and PaliGemma's nothing about its
`<bos>` (transformers 5.19). The mask then lies before the answer. What stands behind the images is read
alike with and without them, so the answers are found from the end of the row instead. So they are where the
template knows thoughts, and prompt and answer are rendered apart (`align.inputs.trained_text`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import bool as bool_
from trl.data_utils import prepare_multimodal_messages
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from align.errors import AlignError
from align.inputs.trained_text import TrainedText, renders_apart, trained_ids, trained_text
from align.models.families import processor_facts
from align.rows.messages import Message

_IGNORED = -100
_TURN = ("role", "content", "loss", "reasoning", "reasoning_content")


class ServedCollator(DataCollatorForVisionLanguageModeling):
    """TRL's vision collator; rows whose template knows thoughts are collated as they are served."""

    def _collate_language_modeling(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        if renders_apart(self.processor):
            return self._collate_apart(examples)
        return super()._collate_language_modeling(examples)

    def _collate_apart(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Rows whose template knows thoughts, by TRL's path for a prompt and its completion: both are
        tokenized apart, as they are served. Labels are counted from the end of the row, behind its images."""
        texts = [trained_text_of(self.processor, example) for example in examples]
        rows = [
            {"images": _pictures(example), "prompt": text.prompt, "completion": text.answer}
            for example, text in zip(examples, texts, strict=True)
        ]
        plain = type(self)(**{**vars(self), "pad_to_multiple_of": None, "completion_only_loss": False})
        batch = plain._collate_prompt_completion(rows)
        if not self.assistant_only_loss:
            return batch
        batch["labels"] = batch["input_ids"].new_full(batch["input_ids"].shape, _IGNORED)
        for row, text in enumerate(texts):
            self._label(batch, row, *trained_ids(self.processor, text))
        return batch

    def _label(self, batch: dict[str, Any], row: int, ids: list[int], spoken: list[int]) -> None:
        """Put the labels of one row into its place, counted from its end."""
        places = batch["attention_mask"][row].nonzero().flatten().tolist()
        made = batch["input_ids"][row, places].tolist()
        for back in range(1, _answers(ids, spoken, made) + 1):
            if spoken[-back]:
                batch["labels"][row, places[-back]] = ids[-back]


class AnswerCollator(ServedCollator):
    """TRL's vision collator without the labels of turns that are not learnt; for the families that need it,
    labels are counted from the end of each row.

    For PaliGemma also the token types: 0 for what stands before the first answer, which the model reads
    in both directions, 1 from there on. TRL leaves all 0, and every answer token sees the next ones.

        <image> <bos> What \\n A cat <eos>      labels      -100 -100 -100 -100 A cat <eos>
                                               token types    0    0    0    0 1   1     1
    """

    def _collate_language_modeling(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        facts = processor_facts(self.processor)
        prefix_lm = facts is not None and facts.prompt == "both directions"
        if prefix_lm and not self.assistant_only_loss:
            raise AlignError(
                "the model reads its prompt in both directions: a loss on it would see its own answers",
                fix="set trainer.assistant_only_loss: true",
            )
        if renders_apart(self.processor):
            return self._collate_apart(examples)
        batch = super()._collate_language_modeling(examples)
        if self.assistant_only_loss:
            if facts is not None and facts.answers != "told":
                batch["labels"] = self._labels(examples, batch)
            for labels, example in zip(batch["labels"], examples, strict=True):
                is_learnt = learnt_tokens((labels != _IGNORED).tolist(), example["messages"])
                labels[~labels.new_tensor(is_learnt, dtype=bool_)] = _IGNORED
        if prefix_lm:
            answered = (batch["labels"] != _IGNORED).cumsum(dim=1) > 0
            batch["token_type_ids"] = answered.to(batch["token_type_ids"].dtype)
        return batch

    def _labels(self, examples: list[dict[str, Any]], batch: dict[str, Any]) -> Any:
        tokenizer: Any = getattr(self.processor, "tokenizer")  # noqa: B009 - ProcessorMixin does not declare it
        encoded = tokenizer.apply_chat_template(
            [prepare_multimodal_messages(example["messages"], example["images"]) for example in examples],
            chat_template=self.chat_template or self.processor.chat_template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        batch["labels"] = batch["input_ids"].new_full(batch["input_ids"].shape, _IGNORED)
        for row, made in enumerate(zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)):
            self._label(batch, row, *made)
        return batch["labels"]


def answer_collator(collator: Any, **changed: Any) -> Any:
    """The collator to use in the place of TRL's own, with `changed` fields; any other one as it is."""
    if type(collator) is not DataCollatorForVisionLanguageModeling:
        return collator
    return AnswerCollator(**{**vars(collator), **changed})


def trained_text_of(processor: Any, example: Mapping[str, Any]) -> TrainedText:
    """An example of TRL's, `messages` and its images, as it is trained on."""
    turns = [as_message(turn) for turn in example["messages"]]
    return trained_text(processor, turns, len(_pictures(example)))


def as_message(turn: Mapping[str, Any]) -> Message:
    """A turn of TRL's examples, whose other keys mean nothing here."""
    return Message.model_validate({name: value for name, value in turn.items() if name in _TURN})


def _pictures(example: Mapping[str, Any]) -> list[Any]:
    return [example["image"]] if "image" in example else list(example.get("images") or ())


def learnt_tokens(spoken: Sequence[int], messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Which of the assistant's tokens the loss is on: not those of turns with `loss: false`.

    Args:
        spoken: per token of the row, whether the assistant says it.
        messages: the row's turns.

    Raises:
        AlignError: the template does not mark one stretch of tokens for each of the assistant's turns.
    """
    turns = [turn.get("loss") is not False for turn in messages if turn["role"] == "assistant"]
    if all(turns):
        return list(spoken)
    starts = [n for n, said in enumerate(spoken) if said and not (n and spoken[n - 1])]
    if len(starts) != len(turns):
        raise AlignError(
            f"the chat template marks {len(starts)} stretches of answers for {len(turns)} assistant turns: "
            "where the turns with loss: false are is not known",
            fix="leave such rows out, or train without `loss: false`",
        )
    number = -1
    found = []
    for place, said in enumerate(spoken):
        number += bool(said) and not (place and spoken[place - 1])
        found.append(int(bool(said) and turns[number]))
    return found


def _answers(ids: list[int], spoken: list[int], made: list[int]) -> int:
    """How many tokens at the end of a row hold all answers.

    Args:
        ids: the row's tokens before its images grew.
        spoken: per token of `ids`, whether the assistant says it.
        made: the tokens that the processor made of it.

    Raises:
        AlignError: the processor changed something behind the first answer, or cut the row.
    """
    length = len(ids) - spoken.index(1) if 1 in spoken else 0
    if made[len(made) - length :] != ids[len(ids) - length :]:
        raise AlignError(
            "the row was cut, or shows an image after its first answer: where its answers are is not known",
            fix="raise trainer.max_length, or leave the row out",
        )
    return length
