"""Rows that have passed their checks, on disk: found once, read by every process, resume and later run.

    run_dir/checked_rows/<key>/rows.arrow     the rows, memory-mapped, with their lengths
                               bad.jsonl      where, id, kind and reason of each bad row
                               checked.json   what the whole file told; written last
    run_dir/checked_rows/pictures.db          pictures that have been decoded (`align.inputs.known_pictures`)

The key covers all that a check depends on: the file's bytes, the pictures, the processor and its template,
the limits, and the source of the checks themselves.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from align.digest import digest_file, digest_json, digest_path
from align.errors import AlignError
from align.inputs.row_checks import TURNS
from align.models.thinking import template_kwargs
from align.rows.schema import PreferenceRow, SFTRow
from align.rows.writing import arrow_schema

T = TypeVar("T", SFTRow, PreferenceRow)

ROWS, BAD, SUMMARY = "rows.arrow", "bad.jsonl", "checked.json"
_AT_ONCE = 1000
_WAIT_SECONDS = 0.2


@dataclass
class Summary:
    """What the checks of a whole file told.

    Attributes:
        rows: that can be trained on; `counted`: whether their lengths are known.
        seeing: rows with pictures; `lost`: those with one that is not below the root, `example` for one.
        placed: whether a row says where its pictures stand.
        unlearnt: the first row that has a turn with `loss: false`; None without.
        in_vain: rows with thoughts that are left out, since thinking is off.
    """

    rows: int = 0
    counted: bool = True
    seeing: int = 0
    lost: int = 0
    example: str = ""
    placed: bool = False
    unlearnt: int | None = None
    in_vain: int = 0


class StoredRows(Sequence[T], Generic[T]):
    """Rows in a memory-mapped file, made one by one when they are asked for."""

    def __init__(self, cls: type[T], dataset: Any) -> None:
        self.cls, self.dataset = cls, dataset

    def __len__(self) -> int:
        return len(self.dataset)

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> list[T]: ...
    def __getitem__(self, place: int | slice) -> T | list[T]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        return self._row(self.dataset[place])

    def __iter__(self) -> Iterator[T]:
        for batch in self.dataset.iter(_AT_ONCE):
            names = list(batch)
            for values in zip(*(batch[name] for name in names), strict=True):
                yield self._row(dict(zip(names, values, strict=True)))

    def take(self, places: Sequence[int]) -> StoredRows[T]:
        """The rows at these places."""
        return StoredRows(self.cls, self.dataset.select(places))

    def images(self) -> Iterator[tuple[str, ...]]:
        """Each row's pictures, without making the row."""
        for batch in self.dataset.select_columns(["images"]).iter(_AT_ONCE):
            yield from map(tuple, batch["images"])

    def _row(self, columns: dict[str, Any]) -> T:
        plain = {name: columns[name] for name in self.cls.model_fields}
        read = {name: json.loads(plain[name]) for name in (*TURNS, "meta") if name in plain}
        return self.cls.model_validate({**plain, **read})


def images_of(rows: Sequence[Any]) -> Iterable[tuple[str, ...]]:
    """Each row's pictures."""
    return rows.images() if isinstance(rows, StoredRows) else (tuple(row.images) for row in rows)


def taken(rows: Sequence[T], places: Sequence[int]) -> Sequence[T]:
    """The rows at these places."""
    return rows.take(places) if isinstance(rows, StoredRows) else [rows[place] for place in places]


@dataclass
class CheckedFile:
    """The folder of one file's checked rows."""

    folder: Path

    def is_whole(self) -> bool:
        """Whether the checks have been made."""
        return (self.folder / SUMMARY).is_file()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The only process that makes them; what a killed one left unfinished is removed."""
        import fcntl

        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self.folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            shutil.rmtree(self.partial, ignore_errors=True)
            yield

    @property
    def partial(self) -> Path:
        """Where they are written until they are whole."""
        return self.folder.with_suffix(".partial")

    def wait(self) -> None:
        """Until another process has made them.

        Raises:
            AlignError: whoever started this process is gone, and with it the one that makes them.
        """
        parent = os.getppid()
        while not self.is_whole():
            if os.getppid() != parent:
                raise AlignError(f"the process that checks the rows has ended: {self.folder}")
            time.sleep(_WAIT_SECONDS)

    def summary(self) -> Summary:
        """What the checks told."""
        return Summary(**json.loads((self.folder / SUMMARY).read_text(encoding="utf-8")))

    def bad(self) -> Iterator[dict[str, str]]:
        """Bad rows, in the file's order."""
        with (self.folder / BAD).open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)

    def rows(self, cls: type[T]) -> StoredRows[T]:
        """The good rows; their column `length` has the tokens of each one's longest sequence."""
        from datasets import Dataset

        return StoredRows(cls, Dataset.from_file(str(self.folder / ROWS)))


@dataclass
class CheckedWriter:
    """Writes a folder of checked rows, inside `CheckedFile.alone`; it has its name once it is whole."""

    cls: type[Any]
    target: CheckedFile
    summary: Summary = field(default_factory=Summary)

    def __enter__(self) -> CheckedWriter:
        import pyarrow

        self._folder = self.target.partial
        self._folder.mkdir(parents=True)
        self._bad = (self._folder / BAD).open("w", encoding="utf-8")
        self._schema = _schema(self.cls)
        self._file = pyarrow.OSFile(str(self._folder / ROWS), "wb")
        self._rows = pyarrow.ipc.new_stream(self._file, self._schema)
        self._held: list[dict[str, Any]] = []
        return self

    def keep(self, columns: dict[str, Any], length: int) -> None:
        """A good row."""
        self._held.append({**columns, "length": length})
        self.summary.rows += 1
        if len(self._held) >= _AT_ONCE:
            self._flush()

    def refuse(self, where: str, row_id: str, kind: str, reason: str) -> None:
        """A bad row."""
        line = {"where": where, "row_id": row_id, "kind": kind, "reason": reason}
        self._bad.write(json.dumps(line) + "\n")

    def _flush(self) -> None:
        import pyarrow

        self._rows.write_batch(pyarrow.RecordBatch.from_pylist(self._held, schema=self._schema))
        self._held = []

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._held:
            self._flush()
        for file in (self._rows, self._file, self._bad):
            file.close()
        if kind is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            return
        (self._folder / SUMMARY).write_text(json.dumps(asdict(self.summary)), encoding="utf-8")
        self._folder.rename(self.target.folder)


def checks_key(data: Path, pictures: str, processor: Any, limits: Sequence[Any]) -> str:
    """The identity of a file's checks.

    Args:
        pictures: digest of the image folder; empty without one.
        limits: whatever else decides, as JSON values.
    """
    import tokenizers
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        settings = digest_path(Path(folder))
    package = Path(__file__).parent.parent
    rooms = [package / name for name in ("inputs", "rows", "models")]
    source = digest_json([digest_file(file) for room in rooms for file in sorted(room.rglob("*.py"))])
    versions = [transformers.__version__, tokenizers.__version__]
    rows = [digest_file(data), data.suffix, pictures]
    told = [kwargs] if (kwargs := template_kwargs(processor)) else []
    return digest_json([*rows, settings, processor.chat_template, *told, *limits, source, *versions])[:24]


def _schema(cls: type[Any]) -> Any:
    """Of `row_columns`, and the length."""
    import pyarrow

    text = pyarrow.string()
    fields = [pyarrow.field(item.name, text) if item.name in TURNS else item for item in arrow_schema(cls)]
    margin = [] if cls is SFTRow else [pyarrow.field("margin", pyarrow.float64())]
    return pyarrow.schema([*fields, *margin, pyarrow.field("length", pyarrow.int32())])
