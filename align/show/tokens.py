"""A training row as the tokens that its trainer makes of it, each learnt or not.

An instruction row goes through TRL's own vision collator with `assistant_only_loss`, a pair through the
processor as TRL's preference collator does it: prompt with pictures, then each answer, whose tokens are all
learnt. What is shown is therefore what is trained on, not an account of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import AlignError
from align.inputs.chat import sees_images, tokenizer_of
from align.inputs.images import open_image, resolve_image
from align.inputs.text_rows import sequence_ids
from align.inputs.trained_text import renders_apart, trained_ids, trained_text
from align.inputs.training_data import row_texts
from align.rows.schema import BaseRow, PreferenceRow, SFTRow

_WINDOW = 6  # tokens before one that are decoded with it, for spaces and characters of several tokens


@dataclass(frozen=True)
class Token:
    """A token, or a run of `count` equal ones (image tokens)."""

    text: str
    learnt: bool
    count: int = 1


def row_tokens(row: BaseRow, processor: Any, image_root: Path) -> list[tuple[str, list[Token]]]:
    """(label, tokens) of each sequence of a training row.

    Raises:
        AlignError: a row that is not trained on, a picture that cannot be read, or a chat template without
            `{% generation %}` markers.
    """
    if isinstance(row, SFTRow):
        return [("tokens", _instruction(row, processor, image_root))]
    if isinstance(row, PreferenceRow) and not sees_images(processor):
        found = zip(("chosen", "rejected"), sequence_ids(processor, row_texts(processor, row)), strict=True)
        return [
            (label, _runs(processor, begin + ids, [False] * len(begin) + [True] * len(ids)))
            for label, (begin, ids) in found
        ]
    if isinstance(row, PreferenceRow):
        prompts, answers = [], []
        for prompt, answer in row_texts(processor, row):
            prompts.append(prompt)
            answers.append(answer)
        begin = _ids(processor, prompts[0], _pictures(row.images, image_root))
        tokens = []
        for label, answer in zip(("chosen", "rejected"), answers, strict=True):
            ids = _ids(processor, answer, [])
            tokens.append((label, _runs(processor, begin + ids, [False] * len(begin) + [True] * len(ids))))
        return tokens
    raise AlignError(f"{type(row).__name__}s are not trained on", fix="leave --tokens out")


def _instruction(row: SFTRow, processor: Any, image_root: Path) -> list[Token]:
    ids, learnt = (_seen if sees_images(processor) else _read)(row, processor, image_root)
    if not any(learnt):
        raise AlignError(
            "no token of the row is learnt",
            fix="the chat template needs {% generation %} markers around the assistant's words",
        )
    return _runs(processor, ids, learnt)


def _read(row: SFTRow, tokenizer: Any, _: Path) -> tuple[list[int], list[bool]]:
    """Ids and what is learnt, of a text-only model, with the template that TRL trains with."""
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    if renders_apart(tokenizer):
        ids, spoken = trained_ids(tokenizer, trained_text(tokenizer, row.messages, 0))
        return ids, [bool(one) for one in spoken]
    marked = has_generation_markers(tokenizer.chat_template)
    made = tokenizer.apply_chat_template(
        [message.model_dump() for message in row.messages],
        chat_template=None if marked else get_training_chat_template(tokenizer),
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    return list(made["input_ids"]), [bool(one) for one in made["assistant_masks"]]


def _seen(row: SFTRow, processor: Any, image_root: Path) -> tuple[list[int], list[bool]]:
    """Ids and what is learnt, by TRL's vision collator."""
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    from align.trainers.answer_labels import answer_collator

    collator = answer_collator(DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True))
    messages = [message.model_dump() for message in row.messages]
    batch = collator([{"messages": messages, "images": _pictures(row.images, image_root)}])
    kept = batch["attention_mask"][0].bool()
    learnt = (batch["labels"][0] != -100)[kept].tolist()
    return batch["input_ids"][0][kept].tolist(), learnt


def _pictures(names: Sequence[str], root: Path) -> list[Any]:
    return [open_image(resolve_image(root, name)) for name in names]


def _ids(processor: Any, text: str, pictures: list[Any]) -> list[int]:
    made = processor(text=[text], images=[pictures] if pictures else None, add_special_tokens=False)
    return list(made["input_ids"][0])


def _runs(processor: Any, ids: Sequence[int], learnt: Sequence[bool]) -> list[Token]:
    """Tokens with runs of the same token (and the same fate) as one."""
    starts = [k for k in range(len(ids)) if k == 0 or (ids[k], learnt[k]) != (ids[k - 1], learnt[k - 1])]
    found = []
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        text = _text(tokenizer_of(processor), ids[max(0, start - _WINDOW) : start + 1])
        found.append(Token(text, learnt[start], end - start))
    return found


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    """The last token's share of the text of all of them."""
    before, whole = (tokenizer.decode(list(part), skip_special_tokens=False) for part in (ids[:-1], ids))
    if whole.startswith(before):
        return whole[len(before) :]
    return tokenizer.decode([ids[-1]], skip_special_tokens=False)
