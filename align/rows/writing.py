"""Rows to disk one after the other, in memory that does not grow with their number.

JSONL and Parquet by the file's suffix. A file is written as `<name>.partial` and renamed when it is whole.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from align.errors import AlignError

ROWS_A_GROUP = 1000
"""Rows that are held before they go to disk: a Parquet row group."""


class RowWriter:
    """Writes rows of one class: `with RowWriter(SFTRow, path) as out: out.write(row)`.

    In Parquet `meta` is a JSON string: Arrow would otherwise give every row every other row's keys. The same
    rows give the same bytes. After an error the unfinished file is removed and `path` stays as it was.

    Raises:
        AlignError: an unknown suffix, or a class that Parquet cannot hold.
    """

    def __init__(self, cls: type[BaseModel], path: Path) -> None:
        if path.suffix not in (".jsonl", ".parquet"):
            raise AlignError(
                f"unknown row format {path.suffix!r}", where=str(path), fix="use .jsonl or .parquet"
            )
        self.cls, self.path, self.count = cls, path, 0
        self._partial = path.with_name(path.name + ".partial")
        self._held: list[dict[str, Any]] = []
        self._schema = arrow_schema(cls) if path.suffix == ".parquet" else None
        self._lines: IO[str] | None = None
        self._table: Any = None

    def __enter__(self) -> RowWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._schema is None:
            self._lines = self._partial.open("w", encoding="utf-8")
        else:
            import pyarrow.parquet as pq

            self._table = pq.ParquetWriter(self._partial, self._schema)
        return self

    def write(self, row: BaseModel) -> None:
        """Add one row.

        Raises:
            ValueError: the row holds what JSON cannot (a lone surrogate, say); nothing of it was written.
        """
        if self._lines is not None:
            self._lines.write(row.model_dump_json() + "\n")
        else:
            plain = row.model_dump()
            if "meta" in plain:
                plain["meta"] = json.dumps(plain["meta"], sort_keys=True)
            self._held.append(plain)
            if len(self._held) >= ROWS_A_GROUP:
                self._flush()
        self.count += 1

    def _flush(self) -> None:
        import pyarrow

        self._table.write_table(pyarrow.Table.from_pylist(self._held, schema=self._schema))
        self._held = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._lines is not None:
                self._lines.close()
            elif self._table is not None:
                if error is None and self._held:
                    self._flush()
                self._table.close()
            if error is None:
                self._partial.replace(self.path)
        finally:
            self._partial.unlink(missing_ok=True)


def arrow_schema(cls: type[BaseModel]) -> Any:
    """The Arrow schema of a row class.

    Raises:
        AlignError: a field whose type has no column type here.
    """
    import pyarrow

    hints = get_type_hints(cls)
    return pyarrow.schema([(name, _arrow_type(hints[name], name)) for name in cls.model_fields])


def _arrow_type(hint: Any, name: str) -> Any:
    import pyarrow

    simple = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    origin, inner = get_origin(hint), get_args(hint)
    if name == "meta" or origin is Literal:
        return pyarrow.string()
    if hint in simple:
        return simple[hint]
    if origin is list:
        return pyarrow.list_(_arrow_type(inner[0], "item"))
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return pyarrow.struct(list(arrow_schema(hint)))
    optional = [option for option in inner if option is not type(None)]
    if len(optional) == 1 and len(inner) == 2:
        return _arrow_type(optional[0], name)
    raise AlignError(f"no Parquet column for the field {name!r}", fix="write .jsonl")
