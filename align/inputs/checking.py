"""The checks of a whole file: in this process, or a part of the file on each core; the result is the same."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from align.inputs.checked_rows import CheckedFile, CheckedWriter
from align.inputs.known_pictures import Found, remember
from align.inputs.row_checks import Outcome, RowChecker
from align.progress import Bar
from align.rows.parts import Part, split_rows

PART_BYTES = 4 << 20
"""Of JSON lines that one process checks at a time: some ten thousand rows."""
LARGE_BYTES = 32 << 20
"""From here on a file is worth the seconds that further processes take to start."""

Checked = tuple[list[Outcome], list[Found]]


def make_checks(checker: RowChecker[Any], path: Path, target: CheckedFile) -> None:
    """Check all rows of a file and write `target`.

    Memory holds a part of the file for each core, and of every row only its id.
    """
    with target.alone():
        if not target.is_whole():  # another run may have made them meanwhile
            _make(checker, path, target)


def _make(checker: RowChecker[Any], path: Path, target: CheckedFile) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    size = path.stat().st_size
    on_cores = size >= LARGE_BYTES and cores > 1 and _can_be_sent(checker)
    batches = _on_cores(checker, path, cores) if on_cores else checker(path)
    ids: dict[str, str] = {}
    database = checker.pictures.database
    with CheckedWriter(checker.cls, target) as out, Bar("checking rows", _rows(path), "rows") as bar:
        out.summary.counted = checker.counts
        for outcomes, pictures in batches:
            for found in outcomes:
                _take(found, ids, out)
            if pictures and database is not None:
                remember(database, pictures)
            bar.step(len(outcomes))


def _take(found: Outcome, ids: dict[str, str], out: CheckedWriter) -> None:
    """Keep or refuse a row; of rows with one id the first counts, as stores and reports name rows by it."""
    if found.kind != "schema":
        first = ids.setdefault(found.row_id, found.where)
        if first != found.where:
            found.kind, found.reason = "id", f"its id is that of {first}"
        else:
            out.summary.seeing += found.sees
            out.summary.lost += bool(found.lost)
            out.summary.example = out.summary.example or found.lost
    if found.kind or found.columns is None:
        out.refuse(found.where, found.row_id, found.kind, found.reason)
        return
    if found.unlearnt and out.summary.unlearnt is None:
        out.summary.unlearnt = out.summary.rows
    out.summary.placed |= found.placed
    out.summary.in_vain += found.in_vain
    out.keep(found.columns, found.length)


def _can_be_sent(checker: RowChecker[Any]) -> bool:
    """A processor with code of its own (`trust_remote_code`) may not be known to another process."""
    try:
        pickle.dumps(checker)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def _rows(path: Path) -> int:
    """How many rows a file has, for the bar: lines of text, or what Parquet's footer says."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return pq.ParquetFile(path).metadata.num_rows
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 22), b""))


def _on_cores(checker: RowChecker[Any], path: Path, cores: int) -> Iterator[Checked]:
    """The parts' outcomes in order, with two parts a core under way."""
    # Not forked: this process has threads of torch and tokenizers by now, whose locks a fork would copy.
    context = multiprocessing.get_context("spawn")
    parts = split_rows(path, PART_BYTES)
    with ProcessPoolExecutor(cores, context, _start, (checker,)) as pool:
        waiting: deque[Future[list[Checked]]] = deque()
        for part in parts:
            waiting.append(pool.submit(_check_part, path, part))
            if len(waiting) > 2 * cores:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


_checker: RowChecker[Any] | None = None


def _start(checker: RowChecker[Any]) -> None:
    """In a new process: one thread of tokenizers, since every core has a process of its own."""
    global _checker
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _checker = checker


def _check_part(path: Path, part: Part) -> list[Checked]:
    assert _checker is not None
    return list(_checker(path, part))
