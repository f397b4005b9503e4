"""An answer as it is trained on, for templates that know thoughts: what the server says behind its prompt.

    prompt    <|im_start|>user ... <|im_end|> <|im_start|>assistant <think> </think>     as served
    answer    Yes<|im_end|>                                                              with its end of turn

The prompt is rendered as for the server, with its setting for thoughts, and tokenized apart from the answer,
so that a row's token ids are those of prompt and answer as they are served. An empty block that the template
writes with thoughts off is the prompt's. With thoughts on, an answer without any has its closed block behind
the prompt: that is read and not learnt, the answer is.

Earlier answers of a conversation stand in the prompt as the template writes them there, without thoughts;
they are learnt where the row says so, from their first word to their end of turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from align.errors import AlignError
from align.inputs.chat import as_read, render, tokenizer_of
from align.models.thinking import is_thinking, knows_thoughts, template_of
from align.rows.messages import Message
from align.rows.thoughts import spells_thoughts


@dataclass(frozen=True)
class TrainedText:
    """A conversation as two texts that are tokenized apart.

    Attributes:
        prompt: what the server is given for the last turn.
        answer: what follows it, with the end of turn.
        learnt: (start, end) in the characters of `prompt + answer` of each of the assistant's turns that is
            learnt, in order.
    """

    prompt: str
    answer: str
    learnt: list[tuple[int, int]] = field(default_factory=list)


def renders_apart(processor: Any) -> bool:
    """Whether rows of this processor are rendered here: its template knows thoughts."""
    return knows_thoughts(template_of(processor))


def trained_text(processor: Any, messages: Sequence[Message], num_images: int) -> TrainedText:
    """The conversation, which ends with an assistant's turn, as it is trained on.

    Raises:
        AlignError: the template refuses it, leaves its thoughts or an answer out, or renders the prompt
            differently when an answer follows.
    """
    messages = as_read(processor, messages)
    *before, last = messages
    prompt = render(processor, before, num_images, add_generation_prompt=True)
    whole = render(processor, messages, num_images, add_generation_prompt=False)
    words = last.text.strip()
    place = whole.rfind(words)
    if not whole.startswith(prompt) or place < len(prompt):
        raise AlignError("the chat template renders the prompt differently when an answer follows")
    if last.reasoning.strip() not in whole[len(prompt) : place]:
        raise AlignError(
            "the chat template leaves the thoughts of this answer out",
            fix="set model.thinking: false, and the answer is trained on without them",
        )
    end = whole[place + len(words) :].strip() or str(tokenizer_of(processor).eos_token)
    answer = whole[len(prompt) : place] + words + end
    between = whole[len(prompt) : place]
    is_empty_block = not last.reasoning and spells_thoughts(between)
    learnt = _earlier(processor, before, num_images, prompt, end)
    if last.loss:
        learnt.append((place if is_empty_block else len(prompt), len(prompt) + len(answer)))
    return TrainedText(prompt, answer, learnt)


def trained_ids(processor: Any, text: TrainedText) -> tuple[list[int], list[int]]:
    """Token ids with each image as one placeholder, and for each whether the loss is on it (1 or 0)."""
    ids: list[int] = []
    spoken: list[int] = []
    start = 0
    for part in (text.prompt, text.answer):
        made = tokenizer_of(processor)(part, add_special_tokens=False, return_offsets_mapping=True)
        ids += made["input_ids"]
        for first, behind in made["offset_mapping"]:
            inside = (one for one in text.learnt if one[0] <= start + first and start + behind <= one[1])
            spoken.append(int(behind > first and next(inside, None) is not None))
        start += len(part)
    return ids, spoken


def learnt_words(
    processor: Any, messages: Sequence[Message], num_images: int, of_a_pair: bool = False
) -> str:
    """What of a conversation is learnt, without special tokens; the assistant's words where it is rendered
    whole.

    Args:
        of_a_pair: all that follows the prompt of the last turn, as both answers of a pair are compared.
    """
    if not renders_apart(processor):
        return " ".join(turn.text for turn in messages if turn.role == "assistant" and turn.loss)
    text = trained_text(processor, messages, num_images)
    whole = text.prompt + text.answer
    tokenizer = tokenizer_of(processor)
    spans = [(len(text.prompt), len(whole))] if of_a_pair else text.learnt
    said = (tokenizer(whole[start:end], add_special_tokens=False)["input_ids"] for start, end in spans)
    return " ".join(tokenizer.decode(ids, skip_special_tokens=True) for ids in said)


def thinks_in_vain(processor: Any, messages: Sequence[Message]) -> bool:
    """Whether turns hold thoughts that are left out, since the setting is off."""
    if not renders_apart(processor) or is_thinking(processor):
        return False
    return any(turn.reasoning or spells_thoughts(turn.text) for turn in messages if turn.role == "assistant")


def _earlier(
    processor: Any, before: Sequence[Message], num_images: int, prompt: str, end: str
) -> list[tuple[int, int]]:
    """Where the earlier answers stand in the prompt, each with its end of turn."""
    found: list[tuple[int, int]] = []
    place = 0
    for number, turn in enumerate(before):
        if turn.role != "assistant":
            continue
        asked = render(processor, before[:number], num_images, add_generation_prompt=False)
        words = turn.text.strip()
        start = prompt.find(words, max(place, len(asked) if prompt.startswith(asked) else place))
        behind = prompt.find(end, start + len(words))
        if start < 0 or behind < 0 or prompt[start + len(words) : behind].strip():
            raise AlignError(
                f"where answer {len(found) + 1} stands in the chat template's text is not known",
                fix="leave the row out, or split it into one row an answer",
            )
        place = behind + len(end)
        if turn.loss:
            found.append((start, place))
    return found
