"""Preference pairs to batches in which nothing is there twice.

TRL's vision collator repeats prompt and images for the chosen and the rejected row, so each image is
preprocessed twice. Here the processor sees each prompt and image once. The batch holds TRL's two-row
arrays (token ids are cheap, and TRL's loss and metrics read them), the pixels once, and the row.

    batch = {
        "input_ids": [2B, L], "attention_mask": [2B, L], "completion_mask": [2B, L],  # as TRL's
        "pixel_values": ..., "image_grid_thw": ...,   # of B prompts, whatever the processor makes
        "shared_row": SharedRow,                      # [prompt | chosen | rejected] of B pairs
    }
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from trl.data_utils import apply_chat_template, is_conversational, prepare_multimodal_messages
from trl.trainer.dpo_trainer import DataCollatorForPreference, DataCollatorForVisionPreference

from align.errors import AlignError
from align.inputs.chat import sees_images
from align.inputs.trained_text import renders_apart
from align.trainers.answer_labels import trained_text_of
from align.trainers.shared_row import Branch, Group, pack

_TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")


class PairCollator:
    """Collates TRL's preference examples for `SharedPrefixDPOTrainer`.

    Args:
        two_rows: TRL's text collator, which pads and truncates token ids.
        processor: of a vision dataset, whose examples have `images`, `prompt`, `chosen`, `rejected`;
            None for a dataset that TRL has tokenized.
        image_token_id: the id that stands for an image in the prompt.
        digest: of an image, where the batch shall carry the images' digests (`shared_row.images`) as
            keys for a store; None computes none.
    """

    def __init__(
        self,
        two_rows: DataCollatorForPreference,
        processor: Any = None,
        image_token_id: int | None = None,
        digest: Callable[[Any], str] | None = None,
    ) -> None:
        self.two_rows = two_rows
        self.processor = processor
        self.image_token_id = image_token_id
        self.digest = digest

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch.

        Raises:
            AlignError: an image token in a completion.
        """
        vision: dict[str, Tensor] = {}
        types: dict[str, list[list[int]]] = {}
        images: list[tuple[str, ...]] | None = None
        if self.processor is not None:
            pictures = [pictures_of(example) for example in examples]
            if self.digest is not None:
                images = [tuple(map(self.digest, own)) for own in pictures]
            examples, vision, types = self._process(examples, pictures)
        return self._collate(examples, vision, types, images)

    def chosen_alone(self, examples: list[dict[str, Any]], pictures: list[list[Any]]) -> dict[str, Any]:
        """The batch of `[prompt | chosen]` rows with these pictures; the rejected answers are empty."""
        rows, vision, types = self._process(examples, pictures)
        images = [tuple(map(self.digest, own)) for own in pictures] if self.digest else None
        return self._collate([{**row, "rejected_ids": []} for row in rows], vision, types, images)

    def _collate(
        self,
        examples: list[dict[str, Any]],
        vision: dict[str, Tensor],
        types: dict[str, list[list[int]]],
        images: list[tuple[str, ...]] | None,
    ) -> dict[str, Any]:
        """The batch of tokenized examples and what the processor made of their images."""
        examples = [self._truncated(example) for example in examples]
        batch: dict[str, Any] = {**vision, **self.two_rows(examples)}
        for name, values in types.items():
            batch[name] = _as_two_rows(values, batch["input_ids"])
        pairs = len(examples)
        batch_rows = [side * pairs + pair for pair in range(pairs) for side in (0, 1)]
        batch["shared_row"] = pack(self._groups(examples, types), images, batch_rows)
        return batch

    def _process(
        self, examples: list[dict[str, Any]], pictures: list[list[Any]]
    ) -> tuple[list[dict[str, Any]], dict[str, Tensor], dict[str, list[list[int]]]]:
        """Token ids of each example, the vision inputs, and the prompts' token types."""
        texts = [texts_of(self.processor, *pair) for pair in zip(examples, pictures, strict=True)]
        prompts = self.processor(
            images=pictures if any(pictures) else None,
            text=[text["prompt"] for text in texts],
            padding=True,
            padding_side="left",
            return_tensors="pt",
            add_special_tokens=False,  # the chat template has written them
        )
        answers = self.processor(
            text=[text[side] for side in ("chosen", "rejected") for text in texts],
            padding=True,
            padding_side="right",
            return_tensors="pt",
            add_special_tokens=False,
        )
        ids = _unpadded(prompts["input_ids"], prompts["attention_mask"])
        answer_ids = _unpadded(answers["input_ids"], answers["attention_mask"])
        self._refuse_images(answer_ids)
        chosen, rejected = answer_ids[: len(ids)], answer_ids[len(ids) :]
        rows = [
            {"prompt_ids": prompt, "chosen_ids": good, "rejected_ids": bad}
            for prompt, good, bad in zip(ids, chosen, rejected, strict=True)
        ]
        types = {
            name: _unpadded(prompts[name], prompts["attention_mask"])
            for name in _TOKEN_TYPES
            if name in prompts
        }
        text_inputs = {"input_ids", "attention_mask", *_TOKEN_TYPES}
        return rows, {name: value for name, value in prompts.items() if name not in text_inputs}, types

    def _truncated(self, example: dict[str, Any]) -> dict[str, Any]:
        """Prompt and completions cut to `max_length`, from the end."""
        limit = self.two_rows.max_length
        if limit is None:
            return example
        prompt = example["prompt_ids"][:limit]
        room = limit - len(prompt)
        answers = {side: example[side][:room] for side in ("chosen_ids", "rejected_ids")}
        return {**example, "prompt_ids": prompt, **answers}

    def _groups(self, examples: list[dict[str, Any]], types: dict[str, list[list[int]]]) -> list[Group]:
        groups = []
        for number, example in enumerate(examples):
            prefix = example["prompt_ids"]
            own = {name: values[number][: len(prefix)] for name, values in types.items()}
            blocks = image_blocks(own["token_type_ids"]) if "token_type_ids" in own else None
            branches = [Branch(example["chosen_ids"]), Branch(example["rejected_ids"])]
            groups.append(Group(prefix, branches, blocks, own.get("mm_token_type_ids")))
        return groups

    def _refuse_images(self, answers: Sequence[Sequence[int]]) -> None:
        if self.image_token_id is not None and any(self.image_token_id in ids for ids in answers):
            raise AlignError(
                f"a completion holds the image token (id {self.image_token_id})",
                fix="images belong to the prompt; take the token out of chosen and rejected",
            )


class ServedPairs(DataCollatorForVisionPreference):
    """TRL's vision collator over pairs whose template knows thoughts: it is given texts, as served."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch of the examples."""
        return super().torch_call(
            [
                {"images": (own := pictures_of(example)), **texts_of(self.processor, example, own)}
                for example in examples
            ]
        )


def image_blocks(token_types: Sequence[int]) -> list[int]:
    """Numbers of the runs of image tokens (type 1), -1 elsewhere: each run sees itself in both directions.

    As Gemma 3 does (transformers, `get_block_sequence_ids_for_mask`).
    """
    is_image = [kind == 1 for kind in token_types]
    starts = [now and not before for before, now in pairwise([False, *is_image])]
    number, blocks = -1, []
    for start, inside in zip(starts, is_image, strict=True):
        number += start
        blocks.append(number if inside else -1)
    return blocks


def pictures_of(example: dict[str, Any]) -> list[Any]:
    """The example's images, under either of the names that TRL reads; none in a text-only dataset."""
    return [example["image"]] if "image" in example else list(example.get("images") or ())


def texts_of(processor: Any, example: dict[str, Any], pictures: list[Any]) -> dict[str, str]:
    """Prompt, chosen and rejected as text, rendered as TRL's vision collator renders them, or, by a
    tokenizer, as TRL renders text; where the template knows thoughts, as they are served."""
    turns = {name: example[name] for name in ("prompt", "chosen", "rejected")}
    if not is_conversational(example):
        return turns
    if renders_apart(processor):
        chosen, rejected = (
            trained_text_of(processor, {"messages": [*turns["prompt"], *turns[side]], "images": pictures})
            for side in ("chosen", "rejected")
        )
        return {"prompt": chosen.prompt, "chosen": chosen.answer, "rejected": rejected.answer}
    if sees_images(processor):
        turns = {
            name: prepare_multimodal_messages(given) for name, given in turns.items() if name != "prompt"
        }
        turns["prompt"] = prepare_multimodal_messages(example["prompt"], images=pictures)
    options = {name: example[name] for name in ("tools", "chat_template_kwargs") if name in example}
    return apply_chat_template({**turns, **options}, processor)


def _unpadded(values: Tensor, mask: Tensor) -> list[list[int]]:
    return [row[keep.bool()].tolist() for row, keep in zip(values, mask, strict=True)]


def _as_two_rows(values: list[list[int]], like: Tensor) -> Tensor:
    """Per-prompt numbers `[2B, L]`, the same for chosen and rejected, 0 behind the prompt."""
    out = torch.zeros_like(like)
    for row, numbers in enumerate(values * 2):
        kept = torch.tensor(numbers[: like.shape[1]], dtype=like.dtype)
        out[row, : len(kept)] = kept
    return out
