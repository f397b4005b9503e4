"""Look into a file of rows: `align show FILE`.

FILE holds instruction rows, prompts, pairs, candidates, verdicts, predictions or scores, as .jsonl or
.parquet. --html writes a page with thumbnails; --tokens shows what a training row teaches, token by token.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from align.errors import AlignError
from align.progress import say
from align.rows.kinds import file_class
from align.rows.schema import BaseRow, read_rows
from align.show.page import Entry, pictures_of, render_page
from align.show.terminal import printable, token_lines, view_lines
from align.show.tokens import Token, row_tokens
from align.show.views import view


def main(words: Sequence[str]) -> int:
    """The command; returns the exit code.

    Raises:
        AlignError: a file that cannot be read or holds no rows of ours, or (`--tokens`) rows without tokens.
    """
    given = _parse(words)
    if given.file.is_dir():
        found = sorted(str(path) for path in given.file.rglob("*") if path.suffix in (".jsonl", ".parquet"))
        fix = f"name a file: {', '.join(found[:8])}" if found else "it has no .jsonl or .parquet files"
        raise AlignError("this is a folder", where=str(given.file), fix=fix)
    cls = file_class(given.file)
    processor = _processor(given.tokens) if given.tokens else None
    root = given.image_root or given.file.parent
    bad: list[str] = []
    rows = _wanted(cls, given, bad)
    say(f"{given.file}: {cls.__name__}")
    entries = []
    for row in rows:
        shown = view(row)
        tokens = row_tokens(row, processor, root) if processor else []
        say("\n".join(view_lines(shown)))
        _say_tokens(tokens)
        if given.html:
            entries.append(Entry(shown, pictures_of(shown, root), tokens))
    for fault in bad[:5]:
        say(printable(f"   not a {cls.__name__}: {fault}"))
    if given.html:
        page = render_page(f"{given.file.name}: {cls.__name__}", entries)
        given.html.write_text(page, encoding="utf-8", errors="replace")
        say(f"page: {given.html}")
    return 0


def _wanted(cls: type[BaseRow], given: argparse.Namespace, bad: list[str]) -> Iterator[BaseRow]:
    rows = read_rows(cls, given.file, lambda where, reason, raw: bad.append(f"{where}: {reason}"))
    if given.id is None:
        return islice(rows, given.start, given.start + given.rows)
    return islice((row for row in rows if view(row).id == given.id), given.rows)


def _say_tokens(tokens: Sequence[tuple[str, Sequence[Token]]]) -> None:
    for label, sequence in tokens:
        say(f"   {label}:")
        say("\n".join(token_lines(sequence, sys.stdout.isatty())))


def _processor(checkpoint: str) -> Any:
    from align.models.loading import ModelSection, load_processor

    return load_processor(ModelSection(path=checkpoint))


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="align show", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--rows", type=int, default=5, metavar="N", help="how many (default 5)")
    parser.add_argument("--start", type=int, default=0, metavar="K", help="leave out the first K")
    parser.add_argument("--id", metavar="ID", help="only rows of this id")
    parser.add_argument("--image_root", type=Path, metavar="DIR", help="default: FILE's folder")
    parser.add_argument("--html", type=Path, metavar="PAGE", help="write a page with thumbnails")
    parser.add_argument(
        "--tokens", metavar="DIR", help="a checkpoint, whose tokens and loss mask are shown (training rows)"
    )
    return parser.parse_args(list(words))
