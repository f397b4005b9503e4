"""Rows of a text-only model as token ids, and as the datasets that TRL's trainers read.

TRL tokenizes the prompt with its answer, and where the two merge into one token it leaves the end of the
prompt out: the model then trains on another prompt than it is asked with. Here the prompt keeps the ids that
it has by itself, wherever the answer's own ids continue its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from align.inputs.trained_text import renders_apart, trained_ids, trained_text
from align.rows.messages import Message
from align.rows.schema import PreferenceRow, SFTRow

if TYPE_CHECKING:
    from datasets import Dataset

_AT_ONCE = 1024
_IGNORED = -100


def sequence_ids(tokenizer: Any, sequences: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """Token ids of each segment of each sequence; together they are what the model reads.

    Args:
        sequences: of two segments, prompt and answer, or of others.

    Returns:
        Each segment's own ids. Of two segments, in this order of preference: the whole text's ids where
        the prompt's own begin them; both segments' own ids where they say the same text (a byte-level BPE
        whose answer's first word would take the prompt's last space); the whole's ids, split where they
        leave the prompt's, as TRL does (a SentencePiece whose segments would each begin with a space).
    """
    whole = {"".join(segments) for segments in sequences if len(segments) == 2}
    own = {text for segments in sequences for text in segments}
    ids = _tokenized(tokenizer, sorted(whole | own))
    found = []
    for segments in sequences:
        if len(segments) != 2:
            found.append([ids[text] for text in segments])
            continue
        prompt, answer = segments
        found.append(list(_split(tokenizer, ids[prompt], ids[answer], ids[prompt + answer])))
    return found


def text_dataset(
    rows: Sequence[SFTRow] | Sequence[PreferenceRow],
    texts: Sequence[Sequence[Sequence[str]]],
    tokenizer: Any,
    for_objective: bool = False,
) -> Dataset:
    """The dataset of a text-only model.

    Args:
        texts: per row, its sequences as `align.inputs.training_data.row_texts` gives them.
        for_objective: preference rows also have `id`, `prompt`, `chosen`, `rejected`, `spans`, `margin`.

    Returns:
        `messages` of instruction rows, which TRL tokenizes, or their `input_ids` and `labels` where the
        template knows thoughts; `prompt_ids`, `chosen_ids`, `rejected_ids` of
        pairs.
    """
    from datasets import Dataset

    if isinstance(rows[0], SFTRow):
        if renders_apart(tokenizer):
            turns = (row.messages for row in rows if isinstance(row, SFTRow))
            return Dataset.from_list([_labelled(tokenizer, messages) for messages in turns])
        return Dataset.from_list([row.model_dump(include={"messages"}) for row in rows])
    found = []
    ids = iter(sequence_ids(tokenizer, [sequence for sequences in texts for sequence in sequences]))
    columns = {"id", "prompt", "chosen", "rejected", "spans"} if for_objective else set[str]()
    for row in rows:
        chosen, rejected = next(ids), next(ids)
        prompt, good, bad = _one_prompt(chosen, rejected)
        values = row.model_dump(include=columns)
        if for_objective:
            values["margin"] = float(row.meta.get("margin") or 0.0)
        found.append({**values, "prompt_ids": prompt, "chosen_ids": good, "rejected_ids": bad})
    return Dataset.from_list(found)


def _labelled(tokenizer: Any, messages: Sequence[Message]) -> dict[str, list[int]]:
    ids, spoken = trained_ids(tokenizer, trained_text(tokenizer, messages, 0))
    labels = [token if said else _IGNORED for token, said in zip(ids, spoken, strict=True)]
    return {"input_ids": ids, "labels": labels}


def _one_prompt(
    chosen: Sequence[list[int]], rejected: Sequence[list[int]]
) -> tuple[list[int], list[int], list[int]]:
    """Prompt, chosen and rejected; where the two prompts were split differently, at the earlier place."""
    length = min(len(chosen[0]), len(rejected[0]))
    sides = [prompt[length:] + answer for prompt, answer in (chosen, rejected)]
    return chosen[0][:length], sides[0], sides[1]


def _split(
    tokenizer: Any, prompt: list[int], answer: list[int], whole: list[int]
) -> tuple[list[int], list[int]]:
    if whole[: len(prompt)] == prompt:
        return prompt, whole[len(prompt) :]
    if _said(tokenizer, prompt + answer) == _said(tokenizer, whole):
        return prompt, answer
    same = next((place for place, pair in enumerate(zip(prompt, whole, strict=False)) if pair[0] != pair[1]))
    return whole[:same], whole[same:]


def _said(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _tokenized(tokenizer: Any, texts: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for start in range(0, len(texts), _AT_ONCE):
        batch = list(texts[start : start + _AT_ONCE])
        found |= zip(batch, tokenizer(batch, add_special_tokens=False)["input_ids"], strict=True)
    return found
