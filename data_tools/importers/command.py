"""Import a published dataset as rows: `align import FORMAT SRC OUT`, or `align import auto SRC OUT`.

SRC is a file (JSON, JSON lines, Parquet, CSV, a WebDataset tar), a folder of them, or a hub id (streamed).
OUT is .jsonl or .parquet: instruction rows or preference pairs, whose image paths are relative to the image
root. Rows that cannot be used go to OUT.quarantine.jsonl with their reason; what was moved, left out or
understood in a way worth saying stands in the table. `auto` tells the format from the first rows, and says
what it took them for.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from align.errors import AlignError, RecipeError
from align.progress import say
from data_tools.importers.convert import NOTHING_USABLE, Imported, Job, import_rows
from data_tools.importers.formats import FORMATS
from data_tools.importers.pictures import Pictures
from data_tools.importers.published import Format, Options
from data_tools.importers.recognise import format_named, holds_pictures, recognise


def main(words: Sequence[str]) -> int:
    """The command; returns the exit code.

    Raises:
        AlignError: an unknown format, a source that cannot be read, or no row that can be used.
    """
    given = _parse(words)
    chosen, recognised = format_named(given.format, given.source, given.split)
    root = given.image_root or _default_root(chosen, given.source, given.out)
    pictures = Pictures(root, given.strip, given.prefix, given.max_pixels)
    options = Options(given.max_pairs, given.annotations, given.entry)
    job = Job(chosen, given.source, given.out, pictures, options, given.limit, given.split)
    if recognised:
        say(f"took {given.source} for {chosen.name}: {chosen.what}")
    say(f"importing {given.source} as {chosen.name}; image root {root}")
    imported = _import(job, recognised)
    imported.show()
    say(f"  {imported.num_rows} rows in {given.out}")
    if imported.tally.dropped:
        say(f"  the dropped ones with their reasons: {job.quarantine_path}")
    imported.check_pictures(root, "--image_root DIR, --strip TEXT or --prefix TEXT")
    return 0


def _import(job: Job, recognised: bool) -> Imported:
    """Import, and where no row could be used, tell the format that the rows look like."""
    try:
        return import_rows(job)
    except AlignError as error:
        if recognised or not error.what.startswith(NOTHING_USABLE):
            raise
        try:
            likely = recognise(job.source, job.split).name
        except AlignError:
            raise error from None
        if likely == job.format.name:
            raise
        fix = f"the rows look like {likely}: `align import {likely} ...`; {error.fix}"
        raise AlignError(error.what, where=error.where, fix=fix) from error


def _default_root(chosen: Format, source: str, out: Path) -> Path:
    """A folder beside OUT for pictures that the rows hold or that come from the hub, else the source's
    own."""
    path = Path(source)
    if not path.exists() or holds_pictures(chosen, source):
        return out.with_name(out.stem + "_images")
    return path if path.is_dir() else path.parent


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="align import",
        description=__doc__,
        epilog=_formats(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("format", metavar="FORMAT", help="one of those below, or auto")
    parser.add_argument("source", metavar="SRC", help="a file, a folder of files, or a hub id")
    parser.add_argument("out", metavar="OUT", type=Path, help="rows.jsonl or rows.parquet")
    parser.add_argument(
        "--image_root",
        type=Path,
        metavar="DIR",
        help="folder of the pictures; those that come as bytes are stored below it. "
        "Default: SRC's folder, or OUT's name with _images where the format holds bytes",
    )
    parser.add_argument("--strip", default="", metavar="TEXT", help="cut from the front of image paths")
    parser.add_argument("--prefix", default="", metavar="TEXT", help="put before image paths (after --strip)")
    parser.add_argument("--limit", type=_positive, metavar="N", help="read only the first N published rows")
    parser.add_argument("--split", default="train", help="of a hub dataset (default train)")
    parser.add_argument(
        "--max_pairs", type=_positive, default=1, metavar="N", help="most pairs a published row (default 1)"
    )
    parser.add_argument("--entry", default="", metavar="NAME", help="a data set of a file that lists several")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="VQAv2's annotations file")
    parser.add_argument(
        "--max_pixels", type=_positive, default=50_000_000, metavar="N", help="larger pictures are refused"
    )
    given = parser.parse_args(list(words))
    if given.out.suffix not in (".jsonl", ".parquet"):
        raise RecipeError(
            f"unknown row format {given.out.suffix!r}", where="OUT", fix="use .jsonl or .parquet"
        )
    if given.image_root is not None and given.image_root.exists() and not given.image_root.is_dir():
        raise RecipeError(f"no folder: {given.image_root}", where="--image_root")
    return given


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _formats() -> str:
    lines = ["formats:"]
    for one in FORMATS.values():
        looks = textwrap.indent(textwrap.fill(one.looks, 92, break_long_words=False), " " * 6)
        lines += [f"  {one.name}: {one.what}", looks]
    return "\n".join(lines)
