"""Lines of JSON as text and as values; whatever a line holds, it is a value or an error in its place."""

from __future__ import annotations

import codecs
import io
import json
import re
from pathlib import Path
from typing import IO, Any

from align.errors import AlignError
from align.rows.parts import Part

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""How JSON spells half a character; two of them in order are a whole one."""
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


def open_lines(path: Path, part: Part | None) -> IO[str]:
    """The file's text without a byte order mark; what is not UTF-8 stays visible, as lone surrogates.

    Raises:
        AlignError: UTF-16 or 32, or a file whose first value stands over several lines.
    """
    if part is None or part.start == 0:
        _check_kind(path)
    if part is None:
        return path.open(encoding="utf-8-sig", errors="surrogateescape")
    with path.open("rb") as file:
        file.seek(part.start)
        data = io.BytesIO(file.read(part.stop - part.start))
    return io.TextIOWrapper(data, encoding="utf-8-sig", errors="surrogateescape")


def _check_kind(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(_WIDE) or (len(head) > 1 and 0 in head[:2] and any(head[:2])):
        raise AlignError(
            "the file is in UTF-16 or UTF-32",
            where=str(path),
            fix="save it as UTF-8, or let `align import` read it",
        )
    first = head.removeprefix(codecs.BOM_UTF8).lstrip().splitlines()[:1]
    if first and first[0].strip() in (b"{", b"["):
        raise AlignError(
            "not JSON lines: its first value stands over several lines",
            where=str(path),
            fix="write each row in one line (jq -c), or let `align import auto` read it",
        )


def parsed(line: str, where: str) -> Any:
    """A line's value, or the error that it is: text of another encoding must not be trained on as garbage."""
    try:
        line.encode("utf-8")
    except UnicodeEncodeError as error:
        byte = ord(line[error.start]) - 0xDC00
        fix = "save the file as UTF-8"
        return AlignError(f"not UTF-8: byte 0x{byte:02x} at column {error.start + 1}", where=where, fix=fix)
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            fix = "write each in a line of its own"
            return AlignError("several JSON values in one line", where=where, fix=fix)
        return AlignError(f"not JSON: {error}", where=where)
    except (ValueError, RecursionError) as error:
        return AlignError(f"not JSON: {error}", where=where)
    if _SURROGATE.search(line) and not is_text(value):
        return AlignError("half a character (a lone surrogate) in a text", where=where, fix="mend it there")
    return value


def is_text(value: Any) -> bool:
    """Whether UTF-8 can hold all texts of a JSON value."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (UnicodeEncodeError, RecursionError):
        return False
    return True
