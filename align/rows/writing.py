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
from align.rows.messages import Message, placed_parts

ROWS_A_GROUP = 1000
"""Rows that are held before they go to disk: a Parquet row group."""
_Width = Literal[0, 1, 2]


class RowWriter:
    """Writes rows of one class: `with RowWriter(SFTRow, path) as out: out.write(row)`.

    In Parquet `meta` is a JSON string: Arrow would otherwise give every row every other row's keys. A
    turn's `content` is a column of text as long as no row needs more. With the first row that has pictures
    inside its text, or a turn with `loss: false`, the file is begun anew, with TRL's lists of parts in that
    column, and once more with the first that has a `reasoning`. The same rows give the same bytes. After an
    error the unfinished file is removed and `path` stays as it was.

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
        self._width: _Width = 0
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
            if (width := _width(row)) > self._width:
                self._widen(width)
            self._held.append(self._plain(row))
            if len(self._held) >= ROWS_A_GROUP:
                self._flush()
        self.count += 1

    def _plain(self, row: BaseModel) -> dict[str, Any]:
        plain = row.model_dump()
        if "meta" in plain:
            plain["meta"] = json.dumps(plain["meta"], sort_keys=True)
        return plain | (_with_parts(row, self._width) if self._width else {})

    def _widen(self, width: _Width) -> None:
        """Write what is there once more, with lists of parts, and reasoning."""
        import pyarrow.parquet as pq

        self._table.close()
        narrow = self._partial.with_name(self._partial.name + ".narrow")
        self._partial.replace(narrow)
        held, self._held, self._width = self._held, [], width
        self._schema = arrow_schema(self.cls, width)
        self._table = pq.ParquetWriter(self._partial, self._schema)
        with pq.ParquetFile(narrow) as written:
            groups = (written.read_row_group(group).to_pylist() for group in range(written.num_row_groups))
            for group in (*groups, held):
                rows = (
                    self.cls.model_validate(plain | {"meta": json.loads(plain["meta"])}) for plain in group
                )
                self._held = [self._plain(row) for row in rows]
                if len(self._held) >= ROWS_A_GROUP:
                    self._flush()
        narrow.unlink()

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


def _turn_fields(row: BaseModel) -> dict[str, list[Message]]:
    """The row's lists of turns; the first one has the pictures."""
    values = {name: getattr(row, name) for name in type(row).model_fields}
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, list) and value and all(isinstance(turn, Message) for turn in value)
    }


def _width(row: BaseModel) -> _Width:
    turns = [turn for messages in _turn_fields(row).values() for turn in messages]
    if any(turn.reasoning for turn in turns):
        return 2
    return 1 if any(turn.num_images or not turn.loss for turn in turns) else 0


def _with_parts(row: BaseModel, width: _Width) -> dict[str, Any]:
    """The turns of a row with every picture at its place, whether they are learnt, and their thoughts."""
    found: dict[str, Any] = {}
    images = len(getattr(row, "images", []))
    for name, messages in _turn_fields(row).items():
        contents = placed_parts(messages, images if not found else 0)
        found[name] = [
            {"role": turn.role, "content": content, "loss": turn.loss}
            | ({"reasoning": turn.reasoning} if width == 2 else {})
            for turn, content in zip(messages, contents, strict=True)
        ]
    return found


def arrow_schema(cls: type[BaseModel], width: _Width = 0) -> Any:
    """The Arrow schema of a row class.

    Args:
        width: 0: a turn is role and text. 1: its content is a list of parts, and it says whether it is
            learnt. 2: it has its reasoning too.

    Raises:
        AlignError: a field whose type has no column type here.
    """
    import pyarrow

    hints = get_type_hints(cls)
    return pyarrow.schema([(name, _arrow_type(hints[name], name, width)) for name in cls.model_fields])


def _turn_type(width: _Width) -> Any:
    import pyarrow

    text = pyarrow.string()
    if not width:
        return pyarrow.struct([("role", text), ("content", text)])
    part = pyarrow.struct([("type", text), ("text", text)])
    thoughts = [("reasoning", text)] if width == 2 else []
    content = ("content", pyarrow.list_(part))
    return pyarrow.struct([("role", text), content, ("loss", pyarrow.bool_()), *thoughts])


def _arrow_type(hint: Any, name: str, width: _Width = 0) -> Any:
    import pyarrow

    simple = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    origin, inner = get_origin(hint), get_args(hint)
    if name == "meta" or origin is Literal:
        return pyarrow.string()
    if hint is Message:
        return _turn_type(width)
    if hint in simple:
        return simple[hint]
    if origin is list:
        return pyarrow.list_(_arrow_type(inner[0], "item", width))
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return pyarrow.struct(list(arrow_schema(hint, width)))
    optional = [option for option in inner if option is not type(None)]
    if len(optional) == 1 and len(inner) == 2:
        return _arrow_type(optional[0], name, width)
    raise AlignError(f"no Parquet column for the field {name!r}", fix="write .jsonl")
