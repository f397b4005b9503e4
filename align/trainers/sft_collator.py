"""SFT rows as shared rows: what TRL's collator makes of them, with each picture processed once.

TRL's `DataCollatorForVisionLanguageModeling` repeats an image for every row that shows it. Here rows
with the same images and the same words up to the end of the image form a group; TRL's collator makes
the group's first row, and from the others only the words after the image are tokenised. An image
placeholder is a token that tokenizers split at, so what stands behind it reads the same alone.
Where a family's processor rewrites that text, TRL's collator makes all rows, and only the pixels are
taken once.

    batch = {
        "input_ids": [B, L], "attention_mask": [B, L], "labels": [B, L],  # as TRL's, a group's rows together
        "pixel_values": ..., "image_grid_thw": ...,   # of G groups, whatever the processor makes
        "shared_row": SharedRow,                      # [prefix | row | row ...] of each group
    }
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from trl.data_utils import prepare_multimodal_messages

from align.inputs.trained_text import renders_apart, trained_ids
from align.trainers.answer_labels import learnt_tokens, trained_text_of
from align.trainers.pair_collator import image_blocks
from align.trainers.shared_row import Branch, Group, pack

IGNORED = -100
_TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")


@dataclass(frozen=True)
class Row:
    """One conversation as tokens.

    Attributes:
        ids: all tokens, image placeholders expanded.
        labels: the ids that the loss is on, -100 elsewhere.
    """

    ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class _Unexpanded:
    """A row's tokens while each image is still one placeholder.

    Attributes:
        ids: the tokens.
        spoken: per token, whether the loss is on it.
        words: where the words after the last placeholder begin; 0 without images.
    """

    ids: list[int]
    spoken: list[int]
    words: int

    def expand(self, head: Sequence[int], max_length: int | None) -> Row:
        """The row whose tokens up to `words` have become `head`."""
        ids = [*head, *self.ids[self.words :]]
        answers = zip(self.ids[self.words :], self.spoken[self.words :], strict=True)
        labels = [IGNORED] * len(head) + [token if said else IGNORED for token, said in answers]
        return Row(ids[:max_length], labels[:max_length])


class SharedImageCollator:
    """Collates TRL's conversational vision examples for `SharedImageSFTTrainer`.

    Examples have `messages`, and `images` (PIL, possibly none) or `image`.

    Args:
        separate: TRL's `DataCollatorForVisionLanguageModeling`, with `assistant_only_loss`.
    """

    def __init__(self, separate: Any) -> None:
        self.separate = separate
        self._placeholder: int | None = getattr(separate.processor, "image_token_id", None)
        self._added = set(separate.processor.tokenizer.get_added_vocab().values())

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The batch; a group's prefix is what its rows begin with alike and the loss is not on.

        A row that shows an image after its first answer is a group of its own, whose prefix reaches to that
        image, answers and all.
        """
        plain = [_normal(example) for example in examples]
        groups, batch = self._groups(plain)
        rows = [row for group in groups for row in group]
        padding: int = self.separate.processor.tokenizer.pad_token_id
        texts = {
            "input_ids": _padded([row.ids for row in rows], padding),
            "attention_mask": _padded([[1] * len(row.ids) for row in rows], 0),
            "labels": _padded([row.labels for row in rows], IGNORED),
        }
        types = {name: batch.pop(name) for name in _TOKEN_TYPES if name in batch}
        packed = [
            self._pack(group, {name: values[number].tolist() for name, values in types.items()})
            for number, group in enumerate(groups)
        ]
        return {
            **texts,
            **{name: batch[name] for name in batch if name not in texts},
            "shared_row": pack(packed),
        }

    def in_group_order(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch of the same examples, its rows in the order of ours."""
        plain = [_normal(example) for example in examples]
        order = [number for numbers in _members(plain, self._tokenize(plain)) for number in numbers]
        return dict(self.separate([plain[number] for number in order]))

    def _groups(self, examples: Sequence[dict[str, Any]]) -> tuple[list[list[Row]], dict[str, Any]]:
        """The groups' rows, and what TRL's collator made of the G first ones, `[G, L]` and pixels."""
        unexpanded = self._tokenize(examples)
        members = _members(examples, unexpanded)
        batch = dict(self.separate([examples[numbers[0]] for numbers in members]))
        groups = []
        for numbers, first in zip(members, _rows(batch), strict=True):
            rows = self._expand(first, [unexpanded[number] for number in numbers])
            if rows is None:
                rows = _rows(self.separate([examples[number] for number in numbers]))
            groups.append(rows)
        return groups, batch

    def _tokenize(self, examples: Sequence[dict[str, Any]]) -> list[_Unexpanded]:
        processor = self.separate.processor
        if renders_apart(processor):
            made = (trained_ids(processor, trained_text_of(processor, example)) for example in examples)
            return [_Unexpanded(ids, spoken, self._words(ids)) for ids, spoken in made]
        encoded = processor.tokenizer.apply_chat_template(
            [prepare_multimodal_messages(example["messages"], example["images"]) for example in examples],
            chat_template=self.separate.chat_template or processor.chat_template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        found = []
        masks = zip(encoded["input_ids"], encoded["assistant_masks"], examples, strict=True)
        for ids, spoken, example in masks:
            found.append(_Unexpanded(ids, learnt_tokens(spoken, example["messages"]), self._words(ids)))
        return found

    def _words(self, ids: Sequence[int]) -> int:
        """Where the words behind the last image begin."""
        return max((n + 1 for n, token in enumerate(ids) if token == self._placeholder), default=0)

    def _expand(self, first: Row, rows: Sequence[_Unexpanded]) -> list[Row] | None:
        """All rows of a group from its first; None if its words did not come out of the processor as
        they went in."""
        if len(rows) == 1:
            return [first]
        length = len(first.ids) - len(rows[0].ids) + rows[0].words
        head = first.ids[: max(0, length)]
        limit = self.separate.max_length
        if rows[0].expand(head, limit) != first or (head and head[-1] not in self._added):
            return None
        return [row.expand(head, limit) for row in rows]

    def _pack(self, rows: Sequence[Row], types: dict[str, list[int]]) -> Group:
        length = max(prefix_length(rows), self._images_end(rows[0], types))
        branches = [
            Branch(row.ids[length:], [label != IGNORED for label in row.labels[length:]]) for row in rows
        ]
        own = {name: values[:length] for name, values in types.items()}
        blocks = image_blocks(own["token_type_ids"]) if "token_type_ids" in own else None
        scored = [label != IGNORED for label in rows[0].labels[:length]]
        return Group(rows[0].ids[:length], branches, blocks, own.get("mm_token_type_ids"), scored)

    def _images_end(self, row: Row, types: Mapping[str, Sequence[int]]) -> int:
        """Behind the row's last image token, 0 without images.

        Gemma 3's placeholder stands before its image tokens and is none itself; its token types tell.
        """
        ends = [n + 1 for n, token in enumerate(row.ids) if token == self._placeholder]
        ends += [n + 1 for kinds in types.values() for n, kind in enumerate(kinds) if kind == 1]
        return max(ends, default=0)


def prefix_length(rows: Sequence[Row]) -> int:
    """How many tokens the rows begin with alike, none of which the loss is on."""
    longest = min(_first_label(row) for row in rows)
    first = rows[0].ids
    for row in rows[1:]:
        longest = next((n for n in range(longest) if row.ids[n] != first[n]), longest)
    return longest


def _normal(example: dict[str, Any]) -> dict[str, Any]:
    """The columns that TRL's collator reads, `image` as a list."""
    images = [example["image"]] if "image" in example else list(example["images"] or [])
    return {"messages": example["messages"], "images": images}


def _members(examples: Sequence[dict[str, Any]], unexpanded: Sequence[_Unexpanded]) -> list[list[int]]:
    """Numbers of the examples that share images and all that is written up to them, group by group."""
    digests: dict[int, bytes] = {}
    found: dict[Hashable, list[int]] = {}
    for number, (example, tokens) in enumerate(zip(examples, unexpanded, strict=True)):
        for image in example["images"]:
            if id(image) not in digests:
                digests[id(image)] = _digest(image)
        images = tuple(digests[id(image)] for image in example["images"])
        alone = not images or any(tokens.spoken[: tokens.words])
        key = number if alone else (images, tuple(tokens.ids[: tokens.words]))
        found.setdefault(key, []).append(number)
    return list(found.values())


def _digest(image: Any) -> bytes:
    return hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).digest()


def _rows(batch: dict[str, Any]) -> list[Row]:
    """The rows of a padded batch."""
    found = []
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        kept = mask.bool()
        found.append(Row(ids[kept].tolist(), labels[kept].tolist()))
    return found


def _padded(rows: Sequence[list[int]], value: int) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def _first_label(row: Row) -> int:
    return next((n for n, label in enumerate(row.labels) if label != IGNORED), len(row.labels))
