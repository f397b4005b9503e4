"""Which question an answer of a published file belongs to: by a key that both tell, else by line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from align.errors import AlignError
from evals.answers import Row, unknown_shape
from evals.task import Sample

Pairs = list[tuple[Row, str]]
"""Rows, each with a sample's id; a row of no sample has an id that none has."""


def join_keys(
    rows: Sequence[Row], ids: Mapping[str, str], key_of: Callable[[Row], str | None]
) -> Pairs | None:
    """By key.

    Args:
        ids: key -> sample id.
        key_of: a row's key, None where the row has not the fields.

    Returns:
        None where a row has no key, or none of the keys is known.
    """
    keys = [key_of(row) for row in rows]
    if None in keys or not ids.keys() & set(keys):
        return None
    return [(row, ids.get(key or "", f"?{key}")) for row, key in zip(rows, keys, strict=True)]


def join_lines(
    rows: Sequence[Row], samples: Sequence[Sample], asked: Callable[[Row], str], expected: str
) -> Pairs:
    """The n-th row to the n-th sample, if there are as many and each row that tells its question agrees.

    Args:
        asked: a row's question as `plain_question` makes it, empty where it tells none.
        expected: the formats, for the error.

    Raises:
        AlignError: other numbers, or another question.
    """
    if len(rows) != len(samples):
        raise unknown_shape(
            rows[0].where, f"{len(rows)} answers without matching ids for {len(samples)} questions", expected
        )
    for row, sample in zip(rows, samples, strict=True):
        if asked(row) and asked(row) != plain_question(sample.meta["question"]):
            raise AlignError(
                f"answers {asked(row)!r} where the data asks {sample.meta['question']!r}",
                where=row.where,
                fix="answers must follow the questions of the data, or carry their ids",
            )
    return [(row, sample.id) for row, sample in zip(rows, samples, strict=True)]


def plain_question(question: str) -> str:
    """A question without case, what a prompt puts around it, and POPE's slip `imange`."""
    text = question.lower().replace("imange", "image")
    return text.partition("?")[0].rpartition("\n")[2].strip()
