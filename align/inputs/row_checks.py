"""Everything that can be wrong with a training row, found row by row before the model is loaded.

A `RowChecker` reads a part of the file and says of each row whether it can be trained on, and how long it is.
It can be sent to another process; what only the whole file tells (repeated ids) is left to who asks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from align.errors import AlignError
from align.inputs.budget import TokenBudget
from align.inputs.chat import check_text, image_tokens, render, sees_images
from align.inputs.image_tokens import Size, has_rule
from align.inputs.known_pictures import Found, KnownPictures
from align.inputs.trained_text import renders_apart, thinks_in_vain, trained_text
from align.models.families import processor_facts
from align.rows.foreign import MARKER
from align.rows.messages import Message
from align.rows.parts import Part
from align.rows.schema import PreferenceRow, SFTRow, check_row, raw_rows

T = TypeVar("T", SFTRow, PreferenceRow)
Sequences = list[tuple[str, ...]]

LOST = ("missing image", "image path leaves", "no data.image_root")
"""Beginnings of reasons that say that a picture is not where the recipe looks for it."""
_AT_ONCE = 512


@dataclass
class Outcome:
    """What was found of one row.

    Attributes:
        where: `line 3` of JSON lines, `row 3` of Parquet.
        row_id: empty where there is none.
        kind: of the fault, by which rows are counted; empty for a row that can be trained on.
        reason: the fault in words.
        columns: the row as it is kept, turns and `meta` as JSON; None for a row with a fault.
        length: tokens of its longest sequence; `longest`: with whichever of its images take more.
        sees: whether it has pictures; `lost`: one of them is not below the image root, by this name.
        placed: whether its turns say where its pictures stand; `unlearnt`: one of them has `loss: false`;
            `in_vain`: one holds thoughts, and thinking is off.
    """

    where: str
    row_id: str = ""
    kind: str = ""
    reason: str = ""
    columns: dict[str, Any] | None = None
    length: int = 0
    longest: int = 0
    sees: bool = False
    lost: str = ""
    placed: bool = False
    unlearnt: bool = False
    in_vain: bool = False


@dataclass
class RowChecker(Generic[T]):
    """Checks rows of class `cls` for one processor.

    Attributes:
        max_length: longer rows are bad; None takes every row.
        lacks: what the stage needs and a row has not, in words; empty for a row that has all.
    """

    cls: type[T]
    processor: Any
    max_length: int | None
    pictures: KnownPictures
    lacks: Callable[[T], str]
    _budget: TokenBudget | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._tokens = image_tokens(self.processor)

    @property
    def counts(self) -> bool:
        """Whether rows are counted: not where nobody knows how many tokens an image takes."""
        return self.max_length is not None or not sees_images(self.processor) or has_rule(self.processor)

    def __call__(self, path: Path, part: Part | None = None) -> Iterator[tuple[list[Outcome], list[Found]]]:
        """Outcomes of the rows of a file, or of a part of it, in order and a few hundred at a time, with the
        pictures that were verified for the first time."""
        rows = _numbered(path, part)
        while batch := list(islice(rows, _AT_ONCE)):
            yield self._batch(batch), self.pictures.taken()

    def _batch(self, batch: Sequence[tuple[str, str, Any]]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        kept: list[tuple[Outcome, T, Sequences]] = []
        for place, where, raw in batch:
            found, row = self._read(place, where, raw)
            outcomes.append(found)
            if row is None:
                continue
            try:
                found.kind, found.reason = self._fault(row, found)
                if not found.kind:
                    kept.append((found, row, self._texts(row)))
            except AlignError as error:
                found.kind, found.reason = "text", error.what
        self._count(kept)
        for found, row, _ in kept:
            if self.max_length is not None and found.longest > self.max_length:
                found.kind = "too long"
                found.reason = f"{found.longest} tokens, more than trainer.max_length = {self.max_length}"
            else:
                found.columns = row_columns(row)
        return outcomes

    def _read(self, place: str, where: str, raw: Any) -> tuple[Outcome, T | None]:
        row_id = str(raw.get("id", "")) if isinstance(raw, dict) else ""
        try:
            if isinstance(raw, AlignError):
                raise raw
            row = check_row(self.cls, raw, where)
        except AlignError as error:
            return Outcome(place, row_id, "schema", error.what), None
        messages = messages_of(row)
        return Outcome(
            place,
            row.id,
            sees=bool(image_names(row)),
            placed=any(turn.num_images for turn in messages),
            unlearnt=not all(turn.loss for turn in messages),
            in_vain=thinks_in_vain(self.processor, messages),
        ), row

    def _fault(self, row: T, found: Outcome) -> tuple[str, str]:
        """(kind, reason) of what pictures and the stage's needs say against the row; empty: nothing."""
        names = image_names(row)
        faults = [fault for name in names if (fault := self.pictures.check(name).fault)]
        found.lost = next((name for name in names if self.pictures.check(name).fault.startswith(LOST)), "")
        if names and not sees_images(self.processor):
            return "image", "the row has images, and the model reads text only"
        if faults:
            return "image", faults[0]
        missing = self.lacks(row) or _untrainable(row, self.processor)
        return ("lacks", missing) if missing else ("", "")

    def _texts(self, row: T) -> Sequences:
        check_text([message.text for message in messages_of(row)], self._tokens)
        _check_markers(row)
        return row_texts(self.processor, row)

    def _count(self, kept: Sequence[tuple[Outcome, T, Sequences]]) -> None:
        """Tokens of each row's longest sequence: with its images, and with whichever images take more."""
        if not self.counts or not kept:
            return
        self._budget = self._budget or TokenBudget(self.processor)
        asked = []
        for _, row, sequences in kept:
            for names in _views(row):
                asked += [(sequence, [self._size(name) for name in names]) for sequence in sequences]
        counted = iter(self._budget.lengths(asked))
        for found, row, sequences in kept:
            views = [max(next(counted) for _ in sequences) for _ in _views(row)]
            found.length, found.longest = views[0], max(views)

    def _size(self, name: str) -> Size:
        picture = self.pictures.check(name)
        return picture.height, picture.width


def lacks_nothing(row: SFTRow | PreferenceRow) -> str:
    """For stages that need no more of a row than its class does."""
    return ""


def row_texts(processor: Any, row: SFTRow | PreferenceRow) -> Sequences:
    """The row's sequences as text segments that are tokenized separately.

    SFT has one sequence of one segment; a pair has (prompt, chosen) and (prompt, rejected). Where the
    template knows thoughts, every sequence is a prompt and an answer.

    Raises:
        AlignError: the template refuses the messages, or the prompt's text does not begin the whole text.
    """
    num_images = len(row.images)
    if renders_apart(processor):
        sides = [row.messages] if isinstance(row, SFTRow) else [row.chosen, row.rejected]
        before = [] if isinstance(row, SFTRow) else row.prompt
        texts = [trained_text(processor, [*before, *side], num_images) for side in sides]
        return [(text.prompt, text.answer) for text in texts]
    if isinstance(row, SFTRow):
        return [(render(processor, row.messages, num_images, add_generation_prompt=False),)]
    prompt = render(processor, row.prompt, num_images, add_generation_prompt=True)
    sequences: Sequences = []
    for side in (row.chosen, row.rejected):
        whole = render(processor, [*row.prompt, *side], num_images, add_generation_prompt=False)
        if not whole.startswith(prompt):
            raise AlignError("the chat template renders the prompt differently when an answer follows")
        sequences.append((prompt, whole[len(prompt) :]))
    return sequences


def row_columns(row: SFTRow | PreferenceRow) -> dict[str, Any]:
    """The row as it is kept and trained on.

    Turns are JSON: Arrow knows no list of texts and parts, and would give every part every other one's keys.
    A pair's `margin` is that of its `meta`, 0 without.
    """
    plain = row.model_dump()
    turns = {name: json.dumps(plain[name]) for name in TURNS if name in plain}
    margin = {} if isinstance(row, SFTRow) else {"margin": float(row.meta.get("margin") or 0.0)}
    return {**plain, **turns, **margin, "meta": json.dumps(plain["meta"])}


TURNS = ("messages", "prompt", "chosen", "rejected")


def image_names(row: SFTRow | PreferenceRow) -> list[str]:
    """The row's pictures, the worse ones of a pair behind its own."""
    return row.images if isinstance(row, SFTRow) else [*row.images, *row.rejected_images]


def messages_of(row: SFTRow | PreferenceRow) -> list[Message]:
    """All turns of a row; of a pair its prompt, then both answers."""
    return row.messages if isinstance(row, SFTRow) else [*row.prompt, *row.chosen, *row.rejected]


def _views(row: SFTRow | PreferenceRow) -> list[list[str]]:
    worse = row.rejected_images if isinstance(row, PreferenceRow) else []
    return [row.images, worse] if worse else [row.images]


def _numbered(path: Path, part: Part | None) -> Iterator[tuple[str, str, Any]]:
    """(place for quarantine, place for errors, row or the error that it is)."""
    separator, unit = (":", "line") if path.suffix == ".jsonl" else (" row ", "row")
    for where, raw in raw_rows(path, part):
        yield f"{unit} {where.rsplit(separator, 1)[-1]}", where, raw


def _check_markers(row: SFTRow | PreferenceRow) -> None:
    """Refuse another tool's marker in a question: the row's pictures do not stand there, and no film does."""
    for turn in messages_of(row):
        if turn.role == "user" and (found := MARKER.search(turn.text)):
            raise AlignError(
                f"a question with {found[0][:80]!r}, which marks nothing in rows of ours",
                fix="`align import` puts pictures where they are marked",
            )


def _untrainable(row: SFTRow | PreferenceRow, processor: Any) -> str:
    """Why a row cannot be learnt as it says, in words; empty where it can."""
    if sees_images(processor) and not image_names(row):
        facts = processor_facts(processor)
        if facts is not None and facts.place == "before all text":
            return "no image: this family reads its image before all text, and cannot do without"
    if not isinstance(row, SFTRow):
        return ""
    if not sees_images(processor):
        if all(turn.loss for turn in row.messages):
            return ""
        return "a turn with loss: false; a text-only model is trained on every assistant turn"
    facts = processor_facts(processor)
    if renders_apart(processor) or (facts is not None and facts.answers != "told"):
        roles = [turn.role for turn in row.messages if turn.num_images or turn.role == "assistant"]
        if "user" in roles[roles.index("assistant") :]:
            return "an image after its first answer: where this family's answers are is then not known"
    return ""
