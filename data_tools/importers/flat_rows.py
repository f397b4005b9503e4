"""A question and its answer, or two, as plain texts beside their pictures."""

from __future__ import annotations

from typing import Any

from data_tools.importers.dialogue import BETTER, COMPLETION, IMAGES, WORSE, place
from data_tools.importers.published import Published, Row
from data_tools.importers.turns import Turn, joined, listed, text_of, text_turn
from data_tools.importers.unusable import Unusable

QUESTIONS = ("question", "query", "instruction", "prompt", "user", "text_input", "human")
_ANSWERS = (*COMPLETION, "answers", "outputs", "responses", "assistant", "text_output")


def convert(published: Published) -> list[Row]:
    """An instruction row, or a pair where a worse answer stands beside.

    Raises:
        Unusable: with its reason.
    """
    images = published.pictures.of(published.first(*IMAGES, "image_name", "file_name"))
    worse_images = published.pictures.of(published.first("rejected_images"))
    more = published.first("input", "inputs")
    question = joined(
        [text_of(published.first(*QUESTIONS), "question"), text_of(more, "input") if more else ""]
    )
    worse = published.first(*WORSE)
    better = published.first(*BETTER)
    answer = _one(published.first(*_ANSWERS) if better is None else better, "answer")
    if worse_images and (worse is None or len(worse_images) != len(images)):
        raise Unusable("worse pictures without a worse answer, or not as many as pictures")
    asked = [*_history(published.first("history")), text_turn("user", question)]
    dialogue = place(published, [*asked, text_turn("assistant", answer)], images)
    meta = published.kept(bool(dialogue.images))
    if worse is None:
        if better is not None:
            raise Unusable("a better answer without a worse one")
        return [published.instruction(dialogue.images, dialogue.messages, meta)]
    pair = published.pair(
        dialogue.images,
        dialogue.messages[:-1],
        answer,
        _one(worse, "rejected"),
        meta,
        rejected_images=worse_images,
    )
    return [pair]


def _one(value: Any, what: str) -> str:
    """One answer, or several that are all the same."""
    value = listed(value)
    if isinstance(value, list):
        texts = dict.fromkeys(text_of(text, what) for text in value)
        if len(texts) != 1:
            raise Unusable("several answers, and none of them is named the right one", f"{len(texts)}")
        return next(iter(texts))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return text_of(value, what)


def _history(value: Any) -> list[Turn]:
    """Earlier questions with their answers."""
    value = listed(value) or []
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise Unusable("history is no list of question and answer", str(value)[:100])
    names = ("user", "assistant")
    return [text_turn(n, text_of(t, "history")) for pair in value for n, t in zip(names, pair, strict=True)]
