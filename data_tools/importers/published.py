"""One row as somebody published it, and the ways to make rows of ours from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.errors import AlignError
from align.rows.schema import Message, PreferenceRow, SFTRow, check_row
from data_tools.importers.items import Item
from data_tools.importers.meaning import REASONING_KEYS, SYSTEM_KEYS, foreign_marker, present, refusal
from data_tools.importers.pictures import Pictures
from data_tools.importers.sources import Layout
from data_tools.importers.turns import answer_turn, text_of
from data_tools.importers.unusable import Unusable

Row = SFTRow | PreferenceRow
_IDS = ("id", "idx", "question_id")


@dataclass(frozen=True)
class Options:
    """What the command line says beside format, source and place of the pictures.

    Attributes:
        max_pairs: most pairs from one published row, where it has several answers.
        annotations: the second file of formats that have two.
        entry: which data set of a file that lists several.
    """

    max_pairs: int = 1
    annotations: Path | None = None
    entry: str = ""


def _always(row: dict[str, Any]) -> bool:
    return True


@dataclass(frozen=True)
class Format:
    """A published format.

    Attributes:
        name: as the command line has it.
        what: the dataset, and whether it gives instruction rows or pairs.
        looks: one row, as published.
        convert: makes rows from a published one, or raises `Unusable`.
        layout: how a JSON file of it is laid out.
        embeds: it holds its pictures as bytes.
        join: reads a source of several files in place of `Source.items`.
        needs: keys that every row of it has, `a|b` for either; empty for one that is not told by its rows.
        tells: whether a row with these keys is of this format.
    """

    name: str
    what: str
    looks: str
    convert: Callable[[Published], list[Row]]
    layout: Layout = "rows"
    embeds: bool = False
    join: Callable[[Path, Options], Iterator[Item]] | None = None
    needs: tuple[str, ...] = ()
    tells: Callable[[dict[str, Any]], bool] = _always


class Fields(dict[str, Any]):
    """A published row's fields, which remember which of them were read."""

    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__(fields)
        self.read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        """A field, remembered as read."""
        self.read.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def unread(self) -> dict[str, Any]:
        """Fields that say something and were not read."""
        return {key: value for key, value in super().items() if key not in self.read and _says(value)}


def _says(value: Any) -> bool:
    return value is False or present(value)


@dataclass(frozen=True)
class Published:
    """A published row on its way.

    Attributes:
        fields: what it holds.
        name: `<format>-<place in the source>`, unique whatever ids the publisher gave.
        notes: what was understood, moved or left out that the user should hear of.
    """

    fields: Fields
    name: str
    source: str
    pictures: Pictures
    options: Options
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Something to count in the table beside the kept rows."""
        self.notes.append(text)

    def first(self, *names: str) -> Any:
        """The first of these fields that says something; the others stay unread."""
        own = dict.keys(self.fields)
        for name in names:
            if name in own and present(dict.get(self.fields, name)):
                return self.fields.get(name)
        return None

    def kept(self, has_images: bool) -> dict[str, Any]:
        """`meta`: the origin, and every field without a meaning that nobody has read by now."""
        unread = self.fields.unread()
        known = {*SYSTEM_KEYS, *REASONING_KEYS, "meta"}
        names = [k for k, v in unread.items() if k not in known and not refusal(k, v, has_images)]
        for name in names:
            if name not in _IDS:
                self.note(f"in meta: the key {name[:60]!r}")
        meta = self.origin(*sorted(names))
        own = self.first("meta")
        return meta | (self.origin("meta")["meta"] if isinstance(own, dict) else {"meta": own} if own else {})

    def account(self, has_images: bool) -> None:
        """Account for every field that nobody read.

        Raises:
            Unusable: one of them carries meaning.
        """
        for key, value in self.fields.unread().items():
            if reason := refusal(key, value, has_images):
                raise Unusable(reason, f"the key {str(key)[:100]!r}")
            self.note(f"left out: the key {str(key)[:60]!r}")

    def get(self, name: str) -> Any:
        """A field, None when it is missing."""
        return self.fields.get(name)

    def text(self, name: str) -> str:
        """A field that must be text with something in it.

        Raises:
            Unusable: it is missing, empty or no text.
        """
        return text_of(self.fields.get(name), name)

    def origin(self, *names: str) -> dict[str, Any]:
        """`meta`: the format, the published id, and these fields where the row has them."""
        kept = {"source": self.source}
        for name in (*_IDS, *names):
            value = self.fields.get(name)
            if value is not None:
                kept["source_id" if name in _IDS else name] = _safe(value)
        return kept

    def pair(
        self,
        images: Sequence[str],
        prompt: Sequence[Message],
        chosen: str,
        rejected: str,
        meta: dict[str, Any],
        *,
        number: int = 0,
        rejected_images: Sequence[str] = (),
        spans: Any = None,
        reasoning: Sequence[str | None] = (),
        rejected_reasoning: str = "",
    ) -> PreferenceRow:
        """A preference pair; `number` tells apart the pairs of one published row.

        Args:
            reasoning: of each turn of the prompt and the chosen answer, where there is any.

        Raises:
            Unusable: equal answers, a marker left in the question, or what the schema refuses.
        """
        if chosen == rejected:
            raise Unusable("chosen and rejected are the same text")
        begun = self._begun(prompt)
        thought = self._thought([*(reasoning or [None] * (len(prompt) + 1))], len(begun) - len(prompt))
        values = {
            "id": self._id(number),
            "images": list(images),
            "rejected_images": list(rejected_images),
            "prompt": begun,
            "chosen": answer_turn(text_of(chosen, "chosen")),
            "rejected": answer_turn(text_of(rejected, "rejected")),
            "meta": meta
            | thought
            | ({"rejected_reasoning": rejected_reasoning} if rejected_reasoning else {}),
        } | ({"spans": spans} if spans is not None else {})
        return self._checked(PreferenceRow, values)

    def instruction(
        self,
        images: Sequence[str],
        messages: Sequence[Message],
        meta: dict[str, Any],
        reasoning: Sequence[str | None] = (),
    ) -> SFTRow:
        """An instruction row; `reasoning` of each turn, where there is any.

        Raises:
            Unusable: a marker left in the question, or what the schema refuses.
        """
        begun = self._begun(messages)
        meta = meta | self._thought([*(reasoning or [None] * len(messages))], len(begun) - len(messages))
        values = {"id": self.name, "images": list(images), "messages": begun, "meta": meta}
        return self._checked(SFTRow, values)

    def _begun(self, messages: Sequence[Message]) -> list[Message]:
        """The turns behind the row's own system text, if it has one.

        Raises:
            Unusable: it is no text, or the turns begin with another.
        """
        said = self.first(*SYSTEM_KEYS)
        if said is None:
            return list(messages)
        text = text_of(said, "system")
        if messages and messages[0].role == "system":
            if messages[0].text.strip() != text.strip():
                raise Unusable("two system texts")
            return list(messages)
        return [Message(role="system", content=text), *messages]

    def _thought(self, reasoning: list[str | None], shift: int) -> dict[str, Any]:
        """`meta.reasoning`: one for each turn of the row, behind the `shift` turns put before them."""
        own = self.first(*REASONING_KEYS)
        if own is not None:
            text = text_of(own, "reasoning")
            if reasoning[-1] not in (None, text):
                raise Unusable("more than one reasoning for an answer")
            reasoning[-1] = text
        if not any(reasoning):
            return {}
        self.note("reasoning, kept apart in meta.reasoning")
        return {"reasoning": [*[None] * shift, *reasoning]}

    def _id(self, number: int) -> str:
        return f"{self.name}-{number}" if number else self.name

    def _checked(self, cls: Any, values: dict[str, Any]) -> Any:
        for turn in values.get("messages") or values["prompt"]:
            if turn.role != "assistant":
                reason, marker = foreign_marker(turn.text, bool(values["images"]) and not turn.num_images)
                if reason:
                    raise Unusable(reason, f"{marker} in the {turn.role}'s text")
        try:
            return check_row(cls, values, self.name)
        except AlignError as error:
            raise Unusable("not a valid row", error.what) from error


def _safe(value: Any, depth: int = 0) -> Any:
    """A published value as JSON can hold it: no lone surrogates, no NaN, no bytes."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list) and depth < 4:
        return [_safe(part, depth + 1) for part in value]
    if isinstance(value, dict) and depth < 4:
        return {str(_safe(key)): _safe(part, depth + 1) for key, part in value.items()}
    return value if value is None or isinstance(value, bool | int) else str(value)
