"""Conversations that a model writes from an image's captions, as LLaVA's instruction data were made.

The writer sees the captions, and with `see_image` the picture, behind any OpenAI-compatible server (Liu et
al. 2023, arXiv 2304.08485, section 3, used a text-only one). It must keep to lines of `Q:` and `A:`; what
does not is no conversation but a row of `quarantine.jsonl` with the reply.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from align.config.recipe import Strict
from align.inputs.images import image_sha256, resolve_image
from align.judging.endpoint import Endpoint, connect
from align.judging.wording import fill, places
from align.rows.quarantine import Quarantine
from align.rows.schema import Message, SFTRow
from align.serving.answers import AnswerStore, ask_stored
from align.serving.client import ChatRequest, Reply, Sampling, content_key
from data_tools.sample import check_failures

PROMPT = """\
These captions describe one picture:
{captions}

Write a conversation between a user who asks about the picture and an assistant who sees it: {turns} \
questions with their answers. Ask for what the captions tell, each question something else: what is there, \
how many, what it looks like, where it is, what happens. The assistant says nothing that the captions don't \
support.
Write lines that begin with Q: and A: in turn, and nothing else."""

_LINE = re.compile(r"^\s*(?:\*\*)?([QA])(?:\*\*)?\s*\d*\s*[:.]\s*(?:\*\*)?\s*", re.M)


class Conversations(Strict):
    """Dialogues written by a model from captions."""

    kind: Literal["conversations"]
    share: float = Field(default=0.3, ge=0, description="of the rows, against the other sources' shares")
    captions: Path = Field(description="COCO captions file of the train pictures; true ones")
    writer: Endpoint = Field(description="the server of the model that writes")
    prompt: str = Field(default=PROMPT, description="has {captions} and {turns}")
    turns: int = Field(default=3, ge=1, description="questions in one conversation")
    num_images: int | None = Field(default=None, ge=1, description="most images to write about; null: all")
    see_image: bool = Field(default=False, description="send the picture too; the writer must take images")
    temperature: float = Field(default=0.7, ge=0, description="0 gives equal conversations to equal captions")
    max_tokens: int = Field(default=512, ge=1, description="longest reply, in tokens")
    concurrency: int = Field(default=32, ge=1, description="requests at the same time")
    max_failed: float = Field(default=0.02, ge=0, le=1, description="share of failed requests to accept")

    @field_validator("prompt")
    @classmethod
    def _has_places(cls, prompt: str) -> str:
        if missing := {"captions", "turns"} - places(prompt):
            raise ValueError(f"must contain {{{min(missing)}}}")
        return prompt

    def inputs(self) -> dict[str, Path]:
        """For `run_stage`."""
        return {"captions": self.captions}


def read_conversation(reply: str) -> list[tuple[str, str]] | None:
    """(question, answer) in turn; None unless the reply is nothing but such lines, a question first.

    >>> read_conversation("Q: What is it?\\nA: A dog.\\nQ: Where?\\nA: On a mat.")
    [('What is it?', 'A dog.'), ('Where?', 'On a mat.')]
    """
    marks = list(_LINE.finditer(reply))
    if not marks or reply[: marks[0].start()].strip():
        return None
    ends = [mark.start() for mark in marks[1:]] + [len(reply)]
    said = [(mark[1], reply[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)]
    if len(said) % 2 or [speaker for speaker, _ in said] != ["Q", "A"] * (len(said) // 2):
        return None
    if not all(text for _, text in said):
        return None
    return [(said[place][1], said[place + 1][1]) for place in range(0, len(said), 2)]


def write_conversations(
    section: Conversations,
    captions: Mapping[int, list[str]],
    paths: Mapping[int, str],
    root: Path,
    store: Path,
    seed: int,
    unread: Quarantine,
) -> list[SFTRow]:
    """Conversations about the images of `captions`.

    Args:
        unread: where replies go that are none.
        store: file of the replies; a stopped run asks nothing twice.

    Raises:
        AlignError: no server, a server that stops answering, or more failures than `max_failed`.
    """
    server = connect(section.writer, "writer.endpoint")
    keys: dict[int, str] = {}
    requests: dict[str, ChatRequest] = {}
    for image_id, texts in sorted(captions.items()):
        words = {"captions": "\n".join(f"- {text}" for text in texts), "turns": str(section.turns)}
        pictures = [resolve_image(root, paths[image_id])] if section.see_image else []
        sampling = Sampling(temperature=section.temperature, max_tokens=section.max_tokens, seed=seed)
        message = Message(role="user", content=fill(section.prompt, words))
        request = ChatRequest([message], pictures, sampling)
        keys[image_id] = content_key(server.digest, request, [image_sha256(path) for path in pictures])
        requests[keys[image_id]] = request
    with AnswerStore(store) as answers:
        replies = ask_stored(server, answers, requests, "writing", section.concurrency)
    check_failures(replies, section.max_failed)
    rows = []
    for image_id, key in keys.items():
        reply = replies[key]
        text = reply.choices[0].text if isinstance(reply, Reply) else ""
        turns = read_conversation(text)
        if turns is None:
            reason = "not lines of Q: and A:" if isinstance(reply, Reply) else "request failed"
            unread.add(f"image {image_id}", reason, row={"reply": text})
            continue
        messages = [
            Message(role=role, content=part)
            for pair in turns
            for role, part in zip(("user", "assistant"), pair, strict=True)
        ]
        meta = {"kind": "conversations", "image_id": image_id, "writer": server.model}
        row_id = f"conversation-{image_id}"
        rows.append(SFTRow(id=row_id, images=[paths[image_id]], messages=messages, meta=meta))
    return rows
