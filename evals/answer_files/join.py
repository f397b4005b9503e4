"""Which question an answer of a published file belongs to: by a key that both tell, else by line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from align.errors import AlignError
from evals.answer_files.rows import Row, unknown_shape
from evals.protocol import Sample

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


def join_blocks(
    rows: Sequence[Row],
    blocks: Sequence[Mapping[str, str]],
    needed: Sequence[Collection[str]],
    asked: Callable[[Row], str],
) -> Pairs | None:
    """Rows that go picture by picture, with some questions left out; told by the questions alone.

    Args:
        blocks: for each picture in order, question -> sample id.
        needed: for each picture, the questions that cannot be left out.

    Returns:
        None where the rows cannot be cut into such blocks.
    """
    told = [asked(row) for row in rows]
    # starts[k]: rows at which block k can start, each with the start of block k - 1 that leads there.
    starts: list[dict[int, int]] = [{0: 0}]
    for block, must in zip(blocks, needed, strict=True):
        following: dict[int, int] = {}
        for start in starts[-1]:
            for end in range(start + len(must), min(start + len(block), len(rows)) + 1):
                held = set(told[start:end])
                if len(held) == end - start and held <= block.keys() and held.issuperset(must):
                    following.setdefault(end, start)
        starts.append(following)
    end, pairs = len(rows), []
    for block, found in zip(reversed(blocks), reversed(starts), strict=False):
        if end not in found:
            return None
        start = found[end]
        pairs += [(rows[place], block[told[place]]) for place in reversed(range(start, end))]
        end = start
    return pairs[::-1]


def plain_question(question: str) -> str:
    """A question without case, what a prompt puts around it, and POPE's slip `imange`."""
    text = question.lower().replace("imange", "image")
    return text.partition("?")[0].rpartition("\n")[2].strip()
