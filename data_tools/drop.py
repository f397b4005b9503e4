"""Take rows out of a file by their ids: what the audit, decontamination or a person found.

  align drop pairs.parquet clean.parquet --ids runs/audit/duplicates.jsonl
  align drop pairs.parquet clean.parquet --ids runs/audit/duplicates.jsonl --kinds exact near
  align drop rows.jsonl clean.jsonl --ids runs/decontaminate/matches.jsonl my_list.txt

A list is JSON lines with `id` (and `kind`, and `row` where ids occur twice), or plain text with an id a line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from align.errors import AlignError
from align.progress import Bar, say
from align.rows.kinds import file_class
from align.rows.parts import count_rows
from align.rows.schema import read_rows
from align.rows.tally import Tally
from align.rows.writing import RowWriter
from data_tools.material.row_names import row_name


@dataclass
class Listed:
    """What to take out: a reason by id, and by id and place for those whose places are told."""

    ids: dict[str, str] = field(default_factory=dict)
    places: dict[tuple[str, int], str] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)

    def read(self, path: Path, kinds: Sequence[str]) -> None:
        """Add a list.

        Raises:
            AlignError: no such file, or a line that is neither an id nor an object with one.
        """
        if not path.is_file():
            raise AlignError(f"no such file: {path}", where="--ids", fix="name a list of ids")
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    self._line(line.strip(), f"{path}:{number}", kinds)

    def _line(self, line: str, where: str, kinds: Sequence[str]) -> None:
        if not line.startswith("{"):
            self.ids[line] = "listed"
            return
        try:
            found = json.loads(line)
            row_id, kind, row = str(found["id"]), str(found.get("kind", "listed")), found.get("row")
        except (ValueError, LookupError, RecursionError) as error:
            raise AlignError(
                "neither an id nor JSON with `id`", where=where, fix="see `align drop -h`"
            ) from error
        if kinds and kind not in kinds:
            return
        if isinstance(row, int):
            self.places[row_id, row] = kind
        else:
            self.ids[row_id] = kind

    def reason(self, row_id: str, place: int) -> str:
        """Why a row goes; empty where it stays."""
        found = self.places.get((row_id, place)) or self.ids.get(row_id, "")
        if found:
            self.met.add(row_id)
        return found

    @property
    def missing(self) -> int:
        """How many listed ids no row had."""
        return len({*self.ids, *(row_id for row_id, _ in self.places)} - self.met)


def main(words: Sequence[str]) -> int:
    """The command; returns the exit code.

    Raises:
        AlignError: files that cannot be read, or no row is left.
    """
    given = _parse(words)
    if given.out.resolve() == given.rows.resolve():
        raise AlignError(
            "the cleaned file would overwrite its source", where=str(given.out), fix="name another"
        )
    listed = Listed()
    for path in given.ids:
        listed.read(path, given.kinds)
    cls, tally = file_class(given.rows), Tally("rows")
    with RowWriter(cls, given.out) as out, Bar("dropping", count_rows(given.rows), "rows") as bar:
        unsound = 0

        def bad(where: str, reason: str, raw: object) -> None:
            nonlocal unsound
            unsound += 1
            tally.drop("unsound row", where)

        for place, row in enumerate(read_rows(cls, given.rows, bad)):
            name = row_name(row)
            if reason := listed.reason(name, place):
                tally.drop(reason, name)
            else:
                tally.keep()
                out.write(row)
            bar.step()
        if not tally.kept:
            raise AlignError("no row left", where=str(given.rows), fix="is the list of another file?")
    tally.show()
    if listed.missing:
        say(f"  {listed.missing} listed ids are in no row: is the list of another file?")
    say(f"  {given.out}")
    return 0


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="align drop", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path, metavar="ROWS", help=".parquet or .jsonl, any of our rows")
    parser.add_argument("out", type=Path, metavar="OUT", help="where the others are written")
    parser.add_argument("--ids", type=Path, nargs="+", required=True, metavar="FILE", help="lists of ids")
    parser.add_argument("--kinds", nargs="+", default=[], metavar="KIND", help="only these kinds of a list")
    return parser.parse_args(list(words))
