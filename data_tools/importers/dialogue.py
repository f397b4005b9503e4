"""Rows that hold a conversation, by whichever tool: turns, pictures, and a worse answer where there is one.

`messages` or `conversations` alone are an instruction row; with `rejected_response`, `rejected_messages`
(ms-swift), `chosen` and `rejected` (LLaMA-Factory), or `prompt`, `chosen`, `rejected` (TRL, whose prompt may
also be told by what both answers begin with) they are a pair; `prompt` and `completion` are an instruction
row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from data_tools.importers.meaning import present
from data_tools.importers.published import Published, Row
from data_tools.importers.turns import (
    Dialogue,
    Turn,
    check_order,
    in_order,
    listed,
    placed,
    read_turns,
    text_of,
    text_turn,
)
from data_tools.importers.unusable import Unusable

TURNS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "texts")
IMAGES = (
    "images",
    "image",
    "image_path",
    "image_paths",
    "img_path",
    "img",
    "image_file",
    "image_base64_str",
    "image_url",
    "pictures",
    "picture",
)
WORSE = (
    "rejected_response",
    "rejected_messages",
    "rejected_conversations",
    "rejected_answer",
    "rejected_completion",
    "rejected_output",
    "rejected",
)
BETTER = ("chosen", "chosen_response", "chosen_messages", "chosen_answer", "chosen_conversations")
COMPLETION = ("completion", "response", "answer", "output")


def convert(published: Published) -> list[Row]:
    """Instruction rows and pairs of anything that holds turns.

    Raises:
        Unusable: with its reason.
    """
    images = published.pictures.of(published.first(*IMAGES))
    worse_images = published.pictures.of(published.first("rejected_images"))
    if worse_images and published.first(*WORSE) is None:
        raise Unusable("worse pictures without a worse answer")
    turns = published.first(*TURNS)
    better, worse = published.first(*BETTER), published.first(*WORSE)
    if turns is not None:
        return [_of_turns(published, images, worse_images, read_turns(turns, published.note), better, worse)]
    prompt = published.first("prompt")
    if worse is not None and better is not None:
        return [_of_answers(published, images, worse_images, prompt, better, worse)]
    completion = published.first(*COMPLETION) if worse is None and better is None else None
    empty = next((name for name in TURNS if name in published.fields), None)
    if empty is not None and prompt is None:
        read_turns(published.get(empty))
    if prompt is None or completion is None:
        known = ", ".join(map(str, published.fields))[:200]
        raise Unusable("neither messages nor prompt, chosen and rejected", known)
    asked = _turns(prompt, "user", published)
    return [_instruction(published, images, [*asked, *_turns(completion, "assistant", published)])]


def _of_turns(
    published: Published,
    images: list[str],
    worse_images: list[str],
    turns: list[Turn],
    better: Any,
    worse: Any,
) -> Row:
    """A row whose conversation is one list, its answers in it or beside it."""
    if worse is None:
        if better is not None:
            raise Unusable("a better answer without a worse one")
        return _instruction(published, images, turns)
    if better is None:
        if turns[-1].role != "assistant":
            raise Unusable("the conversation does not end with an answer")
        prompt, chosen = turns[:-1], turns[-1]
    else:
        prompt = turns
        chosen = _answer(better, prompt, published)
        if turns[-1].role == "assistant":
            if turns[-1].text != chosen.text:
                raise Unusable("the conversation ends with an answer, and another is chosen")
            prompt = turns[:-1]
    return _pair(published, images, worse_images, prompt, chosen, _answer(worse, prompt, published))


def _of_answers(
    published: Published, images: list[str], worse_images: list[str], prompt: Any, better: Any, worse: Any
) -> Row:
    """A row of two answers with their prompt before them, or in both."""
    if prompt is not None:
        asked = _turns(prompt, "user", published)
        if asked[-1].role == "assistant":
            raise Unusable("the prompt ends with an answer")
        answers = [_answer(value, asked, published) for value in (better, worse)]
        return _pair(published, images, worse_images, asked, *answers)
    both = [read_turns(value, published.note) for value in (better, worse)]
    chosen, rejected = (turns[-1] for turns in both)
    if _said(both[0][:-1]) != _said(both[1][:-1]):
        raise Unusable("the two conversations ask different questions")
    return _pair(published, images, worse_images, both[0][:-1], chosen, rejected)


def _instruction(published: Published, images: list[str], turns: list[Turn]) -> Row:
    ordered = check_order(turns)
    if len(ordered) < len(turns):
        published.note("answers that nobody asked for, at the beginning, left out")
    dialogue = place(published, ordered, images)
    meta = published.kept(bool(dialogue.images))
    return published.instruction(dialogue.images, dialogue.messages, meta, dialogue.reasoning)


def _pair(
    published: Published,
    images: list[str],
    worse_images: list[str],
    prompt: list[Turn],
    chosen: Turn,
    rejected: Turn,
) -> Row:
    ordered = check_order([*prompt, chosen])
    for turn in (chosen, rejected):
        if turn.role != "assistant":
            raise Unusable("an answer is not one assistant turn", turn.role)
        if turn.pictures:
            raise Unusable("a picture in a turn that is not the user's")
        if not turn.loss:
            raise Unusable("no loss on an answer of a pair")
    # nothing of a prompt is learnt, whatever its turns say
    dialogue = place(published, [replace(turn, loss=True) for turn in ordered], images)
    if worse_images and len(worse_images) != len(dialogue.images):
        raise Unusable(
            "not as many rejected images as images", f"{len(worse_images)} for {len(dialogue.images)}"
        )
    spans = published.first("spans")
    return published.pair(
        dialogue.images,
        dialogue.messages[:-1],
        chosen.text,
        rejected.text,
        published.kept(bool(dialogue.images)),
        rejected_images=worse_images,
        spans=spans,
        reasoning=dialogue.reasoning,
        rejected_reasoning=rejected.reasoning,
    )


def place(published: Published, turns: Sequence[Turn], images: list[str]) -> Dialogue:
    """The turns with their pictures, which this row holds or its parts name.

    Raises:
        Unusable: as `turns.placed`.
    """
    dialogue = placed(turns, images, published.pictures.of)
    for note in dialogue.notes:
        published.note(note)
    return dialogue


def _turns(value: Any, role: str, published: Published) -> list[Turn]:
    """Turns, one turn, or the text of one turn of this role."""
    value = listed(value)
    if isinstance(value, str):
        return [text_turn(role, text_of(value, "prompt" if role == "user" else "answer"))]
    return read_turns([value] if isinstance(value, dict) else value, published.note)


def _answer(value: Any, prompt: Sequence[Turn], published: Published) -> Turn:
    """The answer that a text, a turn or turns hold; the prompt may stand once more before it."""
    value = listed(value)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    turns = _turns(value, "assistant", published)
    if turns[-1].role != "assistant" or len(turns) > len(prompt) + 1:
        raise Unusable("an answer is not one assistant turn", " ".join(turn.role for turn in turns))
    before = turns[:-1]
    tail = prompt[len(prompt) - len(before) :] if before else []
    if _said(before) != _said(tail):
        raise Unusable("the two conversations ask different questions")
    return turns[-1]


def _said(turns: Sequence[Turn]) -> list[tuple[str, str, int]]:
    return [(turn.role, turn.text.strip(), len(turn.pictures)) for turn in turns]


def ends_asking(turns: Sequence[Turn]) -> list[Turn]:
    """Turns in order that end with a question.

    Raises:
        Unusable: they end with an answer.
    """
    ordered = in_order(turns)
    if ordered[-1].role != "user":
        raise Unusable("the conversation does not end with a question")
    return ordered


def says(row: dict[str, Any], *names: str) -> bool:
    """Whether any of these keys of a published row says something."""
    return any(present(row.get(name)) for name in names)
