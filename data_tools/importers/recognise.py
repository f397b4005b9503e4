"""What format a source is in, told from its first rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from align.errors import AlignError, RecipeError
from data_tools.importers.formats import FORMATS, format_of
from data_tools.importers.items import Item
from data_tools.importers.json_stream import JsonStream, open_text
from data_tools.importers.meaning import present
from data_tools.importers.published import Format
from data_tools.importers.sources import open_source

AUTO = "auto"
_LOOKED_AT = 50
_DEEPEST = 6


def recognise(source: str, split: str = "train") -> Format:
    """The format that fits most of the first rows, and asks for most of their keys.

    Raises:
        AlignError: none fits, or two that read rows differently fit equally well.
    """
    of_object = _by_pair(Path(source))
    if of_object is not None:
        return of_object
    rows = [item.value for item in islice(_items(source, split), _LOOKED_AT) if isinstance(item.value, dict)]
    if not rows:
        raise AlignError("no objects to tell a format by", where=source, fix="see the file's first lines")
    known = [one for one in FORMATS.values() if one.needs and one.layout == "rows" and one.join is None]
    ranked = sorted(((_rank(one, rows), -place, one) for place, one in enumerate(known)), key=lambda x: x[:2])
    best, _, found = ranked[-1]
    if best[0] == 0:
        raise AlignError(_nothing_fits(rows[0], known), where=source, fix=_FIX)
    rivals = [one for rank, _, one in ranked if rank == best and one.convert is not found.convert]
    if rivals:
        names = ", ".join([found.name, *(one.name for one in rivals)])
        raise AlignError(f"the rows may be of several formats: {names}", where=source, fix="name one of them")
    return found


_FIX = "name the format (`align import --help` shows how each looks), or rename the keys"


def holds_pictures(one: Format, source: str) -> bool:
    """Whether a local source's first rows hold their pictures, as bytes or in texts, and not their paths."""
    if one.join is not None:
        return False
    items = islice(open_source(source, one.layout).items(), _LOOKED_AT)
    return any(_holds_bytes(item.value) for item in items)


def _holds_bytes(value: Any, depth: int = 0) -> bool:
    if isinstance(value, bytes):
        return True
    if isinstance(value, str):
        return value[:11].lower() == "data:image/"
    if depth > _DEEPEST:
        return False
    if isinstance(value, dict):
        return any(
            ("base64" in str(key) and part) or _holds_bytes(part, depth + 1) for key, part in value.items()
        )
    return isinstance(value, list) and any(_holds_bytes(part, depth + 1) for part in value)


def _items(source: str, split: str) -> Iterator[Item]:
    return open_source(source, split=split).items()


def _rank(one: Format, rows: Sequence[dict[str, Any]]) -> tuple[int, int, bool]:
    """How many rows fit, how many keys are asked for, and whether more than keys is."""
    fitting = sum(fits(one, row) for row in rows)
    return (
        (fitting, len(one.needs), one.tells is not Format.__dataclass_fields__["tells"].default)
        if fitting
        else (0, 0, False)
    )


def fits(one: Format, row: dict[str, Any]) -> bool:
    """Whether a row has all that a format needs."""
    try:
        return not lacking(one, row) and one.tells(row)
    except RecursionError:
        return False


def lacking(one: Format, row: dict[str, Any]) -> list[str]:
    """The needs that a row does not meet."""
    return [need for need in one.needs if not any(present(row.get(name)) for name in need.split("|"))]


def _by_pair(path: Path) -> Format | None:
    """The format of a JSON file that is one object, by its first key and value."""
    if path.suffix != ".json" or not path.is_file():
        return None
    try:
        with open_text(path) as file:
            stream = JsonStream(path, file)
            if stream.peek() != "{":
                return None
            key, value = next(stream.pairs(), ("", None))
    except AlignError:
        return None
    row = {"key": key, **value} if isinstance(value, dict) else {"key": key, "items": value}
    named = [one for one in FORMATS.values() if one.needs and "key" in one.needs]
    found = [one for one in named if isinstance(value, dict | list) and value and fits(one, row)]
    return max(found, key=lambda one: len(one.needs), default=None)


def _nothing_fits(row: dict[str, Any], known: Sequence[Format]) -> str:
    keys = ", ".join(str(key)[:40] for key in islice(row, 20))
    near = sorted(known, key=lambda one: (len(lacking(one, row)) / len(one.needs), len(one.needs)))
    told = []
    for one in near[:3]:
        lacks = ", ".join(need.replace("|", " or ") for need in lacking(one, row)) or "its form"
        told.append(f"{one.name} (lacks {lacks})")
    return f"no known format has rows with the keys {keys}; nearest: {'; '.join(told)}"


def format_named(name: str, source: str, split: str) -> tuple[Format, bool]:
    """The format of that name, or (`auto`) of the source; and whether it was recognised.

    Raises:
        AlignError: `auto`, and it cannot be told.
        RecipeError: no such format.
    """
    if name == AUTO:
        return recognise(source, split), True
    try:
        return format_of(name), False
    except RecipeError as error:
        raise RecipeError(error.what, fix=f"`align import --help`, or `{AUTO}`") from error
