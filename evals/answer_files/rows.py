"""Files of answers as benchmarks publish them: JSON or JSON lines, one object an answer.

Every reader here ends in `Prediction`s. Rows that are not understood are errors that name the row and say
what was expected; a null answer is a failed request, counted and not scored.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import AlignError
from align.rows.schema import Prediction, check_row

OWN_FORMAT = "predictions.jsonl of `align generate`"
TEXT_FIELDS = ("prediction", "pred", "response", "output", "model_answer", "answer", "caption", "text")
"""Names that published files give to a model's answer, the unmistakable ones first."""
_NOT_BLANK = re.compile(r"\S")
_WRAPPERS = ("imgToEval", "annotations", "sentences", "results")
"""Keys that hold the answers in files which also hold something else."""


@dataclass(frozen=True)
class Row:
    """One object of an answer file, and where it stands."""

    where: str
    fields: Mapping[str, Any]

    def first(self, names: Sequence[str]) -> Any:
        """The value of the first of these fields that the row has; None if it has none."""
        return next((self.fields[name] for name in names if name in self.fields), None)

    def need(self, names: Sequence[str], expected: str) -> Any:
        """As `first`, but one of them must be there.

        Raises:
            AlignError: none is; `expected` describes the format.
        """
        if not any(name in self.fields for name in names):
            raise unknown_shape(self.where, f"none of the fields {', '.join(names)}", expected)
        return self.first(names)

    def need_id(self, names: Sequence[str], expected: str) -> str:
        """As `need`, of an id: a whole number that a table made a fraction of (7.0) is that number."""
        value = self.need(names, expected)
        return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def unknown_shape(where: str, what: str, expected: str) -> AlignError:
    """The error for a file whose format no reader knows."""
    return AlignError(f"not a known answer format: {what}", where=where, fix=f"expected {expected}")


def read_answer_rows(path: Path, expected: str) -> list[Row]:
    """The objects of a JSON list, of a JSON object `{id: object or text}` (its key becomes the field `id`),
    or of JSON lines, whatever the file is called; see `read_text`.

    Raises:
        AlignError: unreadable, neither of those, or empty.
    """
    text = read_text(path, expected)
    try:
        whole = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        rows = _lines(path, text, expected)
    else:
        rows = _objects(path, whole, expected)
    if not rows:
        raise unknown_shape(str(path), "no answers in this file", expected)
    return rows


def read_text(path: Path, expected: str) -> str:
    """A file's text, packed by gzip or not: UTF-8 with or without a mark, or UTF-16 with one, as some shells
    write it. Bytes that are none become the replacement character; lines end in `\\n`.

    Raises:
        AlignError: unreadable; `expected` says what the file should be.
    """
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise AlignError(f"cannot read {path}: {reason}", fix=f"expected {expected}") from error
    is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16" if is_wide else "utf-8-sig", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_whole(path: Path) -> Any:
    """The JSON value that a file is; None where it is none, or cannot be read: its reader will say so."""
    try:
        return json.loads(read_text(path, ""), strict=False)
    except (AlignError, ValueError, RecursionError):
        return None


def _lines(path: Path, text: str, expected: str) -> list[Row]:
    rows = _stream(path, text, expected) if text.lstrip().startswith("{\n") else []
    if rows:
        return rows
    # Not splitlines: a model's answer may hold U+2028, which JSON need not escape.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                value = json.loads(line, strict=False)
            except (ValueError, RecursionError) as error:
                raise unknown_shape(
                    f"{path}:{number}", f"neither JSON nor JSON lines: {error}", expected
                ) from error
            rows.append(_row(f"{path}:{number}", value, expected))
    return rows


def _stream(path: Path, text: str, expected: str) -> list[Row]:
    """Objects one behind the other, each over several lines, as POPE publishes some captions; none where the
    text is something else."""
    decoder, rows, place = json.JSONDecoder(strict=False), list[Row](), 0
    while found := _NOT_BLANK.search(text, place):
        try:
            value, place = decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            return []
        rows.append(_row(f"{path} object {len(rows) + 1}", value, expected))
    return rows


def _objects(path: Path, whole: Any, expected: str) -> list[Row]:
    if isinstance(whole, dict):
        whole = next((whole[name] for name in _WRAPPERS if isinstance(whole.get(name), list | dict)), whole)
    if isinstance(whole, list):
        return [_row(f"{path} item {number}", value, expected) for number, value in enumerate(whole)]
    if isinstance(whole, dict) and whole and all(isinstance(value, dict | str) for value in whole.values()):
        if (
            not any(isinstance(value, dict) for value in whole.values())
            and {"text", *TEXT_FIELDS} & whole.keys()
        ):
            return [Row(f"{path}:1", whole)]  # JSON lines with a single line
        return [
            Row(
                f"{path} key {key!r}",
                {"id": key, **value} if isinstance(value, dict) else {"id": key, "text": value},
            )
            for key, value in whole.items()
        ]
    if isinstance(whole, dict):
        return [Row(f"{path}:1", whole)]
    raise unknown_shape(str(path), f"a JSON {type(whole).__name__}", expected)


def _row(where: str, value: Any, expected: str) -> Row:
    if not isinstance(value, dict):
        raise unknown_shape(where, f"a JSON {type(value).__name__} where an object should be", expected)
    return Row(where, value)


def answer_text(value: Any, where: str) -> str | None:
    """An answer as text; None stays None, the only item of a list is the answer.

    Raises:
        AlignError: an object or a list of several.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    raise AlignError(f"an answer must be text, not {type(value).__name__}", where=where)


def make_prediction(task: str, sample_id: str, text: str | None) -> Prediction:
    """An answer that came in a file; no content key, since nobody knows the weights."""
    if text is None:
        return Prediction(key="", task=task, sample_id=sample_id, error="null in the answer file")
    return Prediction(key="", task=task, sample_id=sample_id, text=text)


def is_own(rows: Sequence[Row]) -> bool:
    """Whether the rows are `align generate`'s predictions."""
    return bool(rows) and all({"task", "sample_id", "key"} <= row.fields.keys() for row in rows)


def own_predictions(rows: Sequence[Row], task: str) -> list[Prediction]:
    """The answers to one task among `align generate`'s predictions.

    Raises:
        AlignError: a malformed row, or no answers to this task where there are several tasks'.
    """
    predictions = [check_row(Prediction, dict(row.fields), row.where) for row in rows]
    names = sorted({prediction.task for prediction in predictions})
    if len(names) > 1 and task not in names:
        raise AlignError(
            f"no answers to a task {task!r} in this file: it has {', '.join(names)}",
            where=rows[0].where,
            fix=f"pick one with --option name=TASK, such as --option name={names[0]}",
        )
    kept = [prediction for prediction in predictions if len(names) == 1 or prediction.task == task]
    return [prediction.model_copy(update={"task": task}) for prediction in kept]
