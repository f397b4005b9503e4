"""Look into a file of rows: `align show FILE`.

FILE holds instruction rows, prompts, pairs, candidates, verdicts, predictions or scores, as .jsonl or
.parquet, or any JSON lines that a stage writes beside them (quarantine, duplicates, matches). --serve opens
it page by page on 127.0.0.1: search, filter and sort by any column, pictures large on click. --html writes
some rows as a page with thumbnails; --tokens shows what a training row teaches, token by token. A verdict
is shown with the picture and the answer it is about, where the candidates are known (--candidates, or by
the stage's own recipe).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from align.errors import AlignError
from align.progress import Bar, say
from align.rows.kinds import file_class
from align.rows.parts import count_rows
from align.rows.schema import BaseRow, Verdict, raw_rows, read_rows
from align.show.answers import candidates_of, check_candidates, stage_setting, view_with
from align.show.catalogue import Catalogue
from align.show.page import Entry, pictures_of, render_page
from align.show.server import Pages, make_server
from align.show.terminal import printable, token_lines, view_lines
from align.show.tokens import Token, row_tokens
from align.show.views import View, plain_view

Fault = Callable[[str, str, Any], None]


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
    cls = _class_of(given.file)
    check_candidates(given.candidates)
    given.candidates = given.candidates or stage_setting(given.file, "candidates")
    given.image_root = given.image_root or stage_setting(given.file, "image_root") or given.file.parent
    name = cls.__name__ if cls is not None else "JSON lines"
    say(f"{given.file}: {name}")
    return _serve(given, cls, name) if given.serve else _print(given, cls, name)


def _class_of(file: Path) -> type[BaseRow] | None:
    """The class of the rows; None for other JSON lines that have what a stage writes beside rows.

    Raises:
        AlignError: neither.
    """
    try:
        return file_class(file)
    except AlignError:
        first = next((raw for _, raw in islice(raw_rows(file), 1)), None)
        if (isinstance(first, dict) and {"where", "reason"} <= set(first)) or (
            isinstance(first, dict) and ({"id", "kind"} <= set(first))
        ):
            return None
        raise


def _print(given: argparse.Namespace, cls: type[BaseRow] | None, name: str) -> int:
    """Some rows in the terminal, and on a page."""
    processor = _processor(given.tokens) if given.tokens else None
    bad: list[str] = []
    entries = []
    shown_rows = 0
    for row, shown in _wanted(given, cls, lambda where, reason, raw: bad.append(f"{where}: {reason}")):
        shown_rows += 1
        tokens = row_tokens(row, processor, given.image_root) if processor and row is not None else []
        say("\n".join(view_lines(shown)))
        _say_tokens(tokens)
        if given.html:
            entries.append(Entry(shown, pictures_of(shown, given.image_root), tokens))
    if not shown_rows:
        _say_none(given)
    for fault in bad[:5]:
        say(printable(f"   not a {name}: {fault}"))
    if given.html:
        page = render_page(f"{given.file.name}: {name}", entries)
        given.html.write_text(page, encoding="utf-8", errors="replace")
        say(f"page: {given.html}")
        if len(entries) > 500:
            say(f"  {len(entries)} rows on one page are slow: `align show {given.file} --serve` pages them")
    return 0


def _say_none(given: argparse.Namespace) -> None:
    if given.id is not None:
        say(f"   no row has the id {printable(given.id)}")
    else:
        say(f"   no row from {given.start} on: the file has {count_rows(given.file)}")


def _views(
    file: Path, cls: type[BaseRow] | None, candidates: Path | None, bad: Fault, start: int, stop: int | None
) -> Iterator[tuple[BaseRow | None, View]]:
    """(row, view) of the rows between two places; rows that are none of ours have a view alone."""
    if cls is None:
        for number, (where, raw) in enumerate(islice(raw_rows(file), start, stop), start):
            if isinstance(raw, AlignError):
                bad(where, raw.what, None)
            else:
                yield None, plain_view(raw, number)
        return
    rows = islice(read_rows(cls, file, bad), start, stop)
    if cls is not Verdict or candidates is None:
        yield from ((row, view_with(row, {})) for row in rows)
        return
    if stop is not None:
        held = list(rows)
        answers = candidates_of(held, candidates)
        yield from ((row, view_with(row, answers)) for row in held)
        return
    yield from _joined(rows, candidates)


def _joined(rows: Iterator[BaseRow], candidates: Path) -> Iterator[tuple[BaseRow, View]]:
    """All verdicts with their answers, some hundred at a time: `align judge` writes both in one order."""
    from align.rows.schema import Candidate

    answers: dict[str, Candidate] = {}
    stream = read_rows(Candidate, candidates, lambda where, reason, raw: None)
    for row in rows:
        assert isinstance(row, Verdict)
        while row.candidate_id not in answers:
            answer = next(stream, None)
            if answer is None:
                break
            answers[answer.id] = answer
        yield row, view_with(row, answers)
        answers.pop(row.candidate_id, None)


def _wanted(
    given: argparse.Namespace, cls: type[BaseRow] | None, bad: Fault
) -> Iterable[tuple[BaseRow | None, View]]:
    if given.id is None:
        return _views(given.file, cls, given.candidates, bad, given.start, given.start + given.rows)
    rows = _views(given.file, cls, None if cls is None else given.candidates, bad, 0, None)
    return islice(((row, shown) for row, shown in rows if shown.id == given.id), given.rows)


def _serve(given: argparse.Namespace, cls: type[BaseRow] | None, name: str) -> int:
    """Read all rows, then answer until Ctrl-C."""
    faults: list[str] = []
    catalogue = Catalogue()
    try:
        with Bar("reading", count_rows(given.file), "rows") as bar:
            bad = lambda where, reason, raw: faults.append(f"{where}: {reason}")  # noqa: E731
            for _, shown in _views(given.file, cls, given.candidates, bad, 0, None):
                catalogue.add(shown)
                bar.step()
        pages = Pages(f"{given.file.name}: {name}", catalogue, given.image_root, len(faults))
        for fault in faults[:5]:
            say(printable(f"   not a {name}: {fault}"))
        with make_server(pages, given.port) as server:
            say(f"  http://127.0.0.1:{server.server_port}/  (Ctrl-C ends it)")
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                say("  ended")
    finally:
        catalogue.close()
    return 0


def _say_tokens(tokens: Sequence[tuple[str, Sequence[Token]]]) -> None:
    for label, sequence in tokens:
        say(f"   {label}:")
        say("\n".join(token_lines(sequence, sys.stdout.isatty())))


def _processor(checkpoint: str) -> Any:
    from align.models.loading import ModelSection, load_processor

    return load_processor(ModelSection(path=checkpoint))


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a number from 0 on, not {text!r}")
    return int(text)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="align show", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--rows", type=_count, default=5, metavar="N", help="how many (default 5)")
    parser.add_argument("--start", type=_count, default=0, metavar="K", help="leave out the first K")
    parser.add_argument("--id", metavar="ID", help="only rows of this id")
    parser.add_argument(
        "--image_root", type=Path, metavar="DIR", help="default: by the stage's recipe, else FILE's folder"
    )
    parser.add_argument("--serve", action="store_true", help="all rows, page by page, in a browser")
    parser.add_argument("--port", type=int, default=8400, help="of --serve (default 8400; 0: a free one)")
    parser.add_argument("--candidates", type=Path, metavar="FILE", help="the answers that verdicts are about")
    parser.add_argument("--html", type=Path, metavar="PAGE", help="write a page with thumbnails")
    parser.add_argument(
        "--tokens", metavar="DIR", help="a checkpoint, whose tokens and loss mask are shown (training rows)"
    )
    return parser.parse_args(list(words))
