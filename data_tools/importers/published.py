"""One row as somebody published it, and the ways to make rows of ours from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import AlignError
from align.rows.schema import Message, PreferenceRow, SFTRow, check_row
from data_tools.importers.pictures import Pictures
from data_tools.importers.sources import Item, Layout
from data_tools.importers.turns import answer_turn, text_of
from data_tools.importers.unusable import Unusable

Row = SFTRow | PreferenceRow


@dataclass(frozen=True)
class Options:
    """What the command line says beside format, source and place of the pictures.

    Attributes:
        max_pairs: most pairs from one published row, where it has several answers.
        annotations: the second file of formats that have two.
    """

    max_pairs: int = 1
    annotations: Path | None = None


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
    """

    name: str
    what: str
    looks: str
    convert: Callable[[Published], list[Row]]
    layout: Layout = "rows"
    embeds: bool = False
    join: Callable[[Path, Options], Iterator[Item]] | None = None


@dataclass(frozen=True)
class Published:
    """A published row on its way.

    Attributes:
        fields: what it holds.
        name: `<format>-<place in the source>`, unique whatever ids the publisher gave.
    """

    fields: dict[str, Any]
    name: str
    source: str
    pictures: Pictures
    options: Options

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
        for name in ("id", "idx", "question_id", *names):
            value = self.fields.get(name)
            if value is not None:
                kept["source_id" if name in ("id", "idx", "question_id") else name] = _safe(value)
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
    ) -> PreferenceRow:
        """A preference pair; `number` tells apart the pairs of one published row.

        Raises:
            Unusable: equal answers, or what the schema refuses.
        """
        if chosen == rejected:
            raise Unusable("chosen and rejected are the same text")
        values = {
            "id": self._id(number),
            "images": list(images),
            "rejected_images": list(rejected_images),
            "prompt": list(prompt),
            "chosen": answer_turn(chosen),
            "rejected": answer_turn(rejected),
            "meta": meta,
        } | ({"spans": spans} if spans is not None else {})
        return self._checked(PreferenceRow, values)

    def instruction(self, images: Sequence[str], messages: Sequence[Message], meta: dict[str, Any]) -> SFTRow:
        """An instruction row.

        Raises:
            Unusable: what the schema refuses.
        """
        values = {"id": self.name, "images": list(images), "messages": list(messages), "meta": meta}
        return self._checked(SFTRow, values)

    def _id(self, number: int) -> str:
        return f"{self.name}-{number}" if number else self.name

    def _checked(self, cls: Any, values: dict[str, Any]) -> Any:
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
