"""Several sets as one file of rows, drawn by a seed: the same rows on every rank and in every run.

Rows keep their file's order, set after set (training shuffles them). An id becomes `<set>:<id>`, `meta.set`
the set's name; pictures stay where they are, named from the folder that all image roots lie in.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from align.errors import AlignError
from align.progress import say
from align.rows.schema import PreferenceRow, SFTRow, read_rows
from align.rows.writing import RowWriter

Row = SFTRow | PreferenceRow


@dataclass(frozen=True)
class Source:
    """A set as rows of ours.

    Attributes:
        share: its part of all rows, or None.
        cap: its most rows, or None.
        bad: rows that could not be used when it was made rows of ours.
    """

    name: str
    path: Path
    image_root: Path | None
    share: float | None
    cap: int | None
    bad: int = 0


@dataclass
class Used:
    """A line of the table: what came from one set."""

    set: str
    rows: int = 0
    bad: int = 0
    held_out: int = 0
    left_out: int = 0
    used: int = 0


def mix(
    cls: type[SFTRow] | type[PreferenceRow],
    sources: list[Source],
    seed: int,
    heldout_share: float,
    out: Path,
    heldout: Path,
) -> tuple[Path | None, list[Used]]:
    """Write the drawn rows to `out` and the held-out ones to `heldout`.

    Returns:
        The image root of the written rows, None where none has pictures; and the table.

    Raises:
        AlignError: sets of which not one row can be drawn.
    """
    table = [Used(source.name, bad=source.bad) for source in sources]
    places = [_places(cls, *pair, seed, heldout_share) for pair in zip(sources, table, strict=True)]
    taken = [set(sorted(own)[:count]) for own, count in zip(places, _counts(sources, places), strict=True)]
    roots = [source.image_root.resolve() for source in sources if source.image_root is not None]
    common = Path(os.path.commonpath(roots)) if roots else None
    with RowWriter(cls, out) as rows, RowWriter(cls, heldout) as held:
        for source, line, chosen in zip(sources, table, taken, strict=True):
            for row in _rows(cls, source):
                if _is_held_out(row, source, seed, heldout_share):
                    held.write(_named(row, source, common))
                elif _place(row, source, seed) in chosen:
                    rows.write(_named(row, source, common))
                    line.used += 1
                else:
                    line.left_out += 1
    _show(table)
    if not any(line.used for line in table):
        raise AlignError("no row to train on in any set", where=", ".join(line.set for line in table))
    return common, table


def _places(
    cls: type[SFTRow] | type[PreferenceRow], source: Source, line: Used, seed: int, heldout_share: float
) -> list[int]:
    """Where each row that may be drawn stands in the seed's order; counts the others."""
    found = []

    def bad(where: str, reason: str, raw: object) -> None:
        line.bad += 1

    for row in read_rows(cls, source.path, bad):
        line.rows += 1
        if _is_held_out(row, source, seed, heldout_share):
            line.held_out += 1
        else:
            found.append(_place(row, source, seed))
    return found


def _counts(sources: list[Source], places: list[list[int]]) -> list[int]:
    """Rows of each set: all up to its cap; with shares, as many as keep them and no row twice."""
    most = [min(len(own), source.cap or len(own)) for source, own in zip(sources, places, strict=True)]
    shares = [source.share for source in sources]
    if any(share is None for share in shares):
        return most
    whole = min(int(count / share + 1e-9) for count, share in zip(most, shares, strict=True) if share)
    return [min(count, round(whole * (share or 0))) for count, share in zip(most, shares, strict=True)]


def _rows(cls: type[SFTRow] | type[PreferenceRow], source: Source) -> Iterator[Row]:
    yield from read_rows(cls, source.path, lambda *_: None)


def _place(row: Row, source: Source, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {source.name} {row.id}".encode()).digest()[:8])


def _is_held_out(row: Row, source: Source, seed: int, share: float) -> bool:
    """By the row's first picture, so that all rows on it go together in all sets; without one, by its id."""
    if not share:
        return False
    root = source.image_root
    key = os.path.realpath((root or Path()) / row.images[0]) if row.images else f"{source.name} {row.id}"
    return int.from_bytes(hashlib.sha256(f"{seed} held out {key}".encode()).digest()[:8]) < share * 2**64


def _named(row: Row, source: Source, common: Path | None) -> Row:
    """The row under its set's name, with its pictures named from the common root."""
    changes: dict[str, object] = {
        "id": f"{source.name}:{row.id}",
        "meta": {**row.meta, "set": source.name},
        "images": [_moved(name, source, common) for name in row.images],
    }
    if isinstance(row, PreferenceRow):
        changes["rejected_images"] = [_moved(name, source, common) for name in row.rejected_images]
    return row.model_copy(update=changes)


def _moved(name: str, source: Source, common: Path | None) -> str:
    """The path from the common root; one that leaves its set's root stays such, for the checks to refuse."""
    if source.image_root is None or common is None:
        return name
    root = source.image_root.resolve()
    path = Path(os.path.realpath(root / name))
    return os.path.relpath(path, common) if path.is_relative_to(root) else f"../{name}"


def _show(table: list[Used]) -> None:
    whole = sum(line.used for line in table) or 1
    for line in table:
        counts = {
            name: count for name, count in asdict(line).items() if name not in ("set", "used") and count
        }
        said = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items())
        say(f"  {line.set}: {line.used} rows, {line.used / whole:.1%} of all ({said})")
