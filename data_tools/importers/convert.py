"""Published rows to rows of ours: every row read is kept, or quarantined with its reason."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from align.errors import AlignError
from align.progress import Bar, say
from align.rows.quarantine import Quarantine
from align.rows.schema import SFTRow
from align.rows.tally import Tally
from align.rows.writing import RowWriter
from data_tools.importers.items import Item
from data_tools.importers.meaning import lone_surrogate
from data_tools.importers.pictures import NOT_FOUND, Pictures
from data_tools.importers.published import Fields, Format, Options, Published, Row
from data_tools.importers.sources import open_source
from data_tools.importers.unusable import Unusable

NOTHING_USABLE = "no row could be used"
_NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Job:
    """One import.

    Attributes:
        source: file, folder or hub id.
        out: `.jsonl` or `.parquet`.
        limit: most published rows to read; None for all.
        split: of a hub dataset.
        bad: file for rows that cannot be used; None: beside `out`.
    """

    format: Format
    source: str
    out: Path
    pictures: Pictures
    options: Options = field(default_factory=Options)
    limit: int | None = None
    split: str = "train"
    bad: Path | None = None

    @property
    def quarantine_path(self) -> Path:
        """Where rows go that cannot be used."""
        return self.bad or self.out.with_name(self.out.name + ".quarantine.jsonl")


@dataclass(frozen=True)
class Imported:
    """What came of it.

    Attributes:
        tally: counts published rows.
        num_rows: rows written.
        kind: their class.
        notes: what was understood in a way worth saying, moved or left out in rows that were kept -> how
        many. num_with_images: published rows that were kept with pictures. examples: reason or note ->
        place and content of the first row of it.
    """

    tally: Tally
    num_rows: int
    kind: type[Row]
    notes: Counter[str]
    num_with_images: int
    examples: dict[str, str]

    def check_pictures(self, root: Path, fix: str) -> None:
        """Refuse an import that found nearly no picture, whatever else it kept.

        Raises:
            AlignError: nine of ten rows with pictures, or more, have none below this root.
        """
        missing = sum(count for reason, count in self.tally.dropped.items() if reason in NOT_FOUND)
        whole = missing + self.num_with_images
        if missing and missing >= _NEARLY_ALL * whole:
            what = f"{missing} of {whole} rows with pictures have theirs nowhere below the image root"
            raise AlignError(what, where=str(root), fix=fix)

    def show(self) -> None:
        """Print what was kept, dropped, moved and left out, each with an example."""
        self.tally.show()
        for note, count in sorted(self.notes.items(), key=lambda item: (-item[1], item[0])):
            say(f"    in {count:>6} kept rows: {note}")
        for reason, example in self.examples.items():
            say(f"    e.g. {reason}: {example}")


def import_rows(job: Job) -> Imported:
    """Read, convert, write.

    Raises:
        AlignError: a source that cannot be read or breaks off, or no row that can be used; nothing is written
            to `out` then, and the quarantine file tells why.
    """
    source = open_source(job.source, job.format.layout, job.split)
    items = job.format.join(Path(job.source), job.options) if job.format.join else source.items()
    total, unit = (0, "rows") if job.format.join else (source.total, source.unit)
    notes: Counter[str] = Counter()
    examples: dict[str, str] = {}
    num_with_images = 0
    with ExitStack() as stack:
        quarantine = stack.enter_context(Quarantine(job.quarantine_path, "published rows"))
        bar = stack.enter_context(Bar("importing", total, unit))
        out: RowWriter | None = None
        kind: type[Row] = SFTRow
        for number, item in enumerate(islice(items, job.limit)):
            try:
                rows, said = convert(job, number, item)
                if out is None:
                    kind = type(rows[0])
                    out = stack.enter_context(RowWriter(kind, job.out))
                if type(rows[0]) is not kind:
                    raise Unusable(f"a {type(rows[0]).__name__} among {kind.__name__}s")
            except Unusable as fault:
                raw = None if isinstance(item.value, AlignError) else item.value
                quarantine.add(item.where, fault.reason, fault.detail, raw)
                examples.setdefault(fault.reason, f"{item.where}: {_short(fault.detail, item.value)}")
            else:
                quarantine.tally.keep()
                num_with_images += bool(rows[0].images)
                for note in dict.fromkeys(said):
                    notes[note] += 1
                    examples.setdefault(note, item.where)
                for row in rows:
                    out.write(row)
            bar.step(max(number + 1 if unit == "rows" else item.done, bar.done) - bar.done)
        if out is None:
            quarantine.tally.show()
            for reason, example in examples.items():
                say(f"    e.g. {reason}: {example}")
            reasons = f"see {job.quarantine_path}" if quarantine.tally.dropped else "the source holds no rows"
            raise AlignError(NOTHING_USABLE, where=job.source, fix=reasons)
    return Imported(quarantine.tally, out.count, kind, notes, num_with_images, examples)


def convert(job: Job, number: int, item: Item) -> tuple[list[Row], list[str]]:
    """The rows of one published row, never none, and what is to be said of them.

    Raises:
        Unusable: it has to be quarantined.
    """
    if isinstance(item.value, AlignError):
        raise Unusable(item.value.what.split(":")[0], item.value.what)
    if not isinstance(item.value, dict):
        raise Unusable("the row is no object", type(item.value).__name__)
    if lone_surrogate(item.value):
        raise Unusable("half a character in a text", "a lone surrogate, which no UTF-8 file can hold")
    name = f"{job.format.name}-{number}"
    published = Published(Fields(item.value), name, job.format.name, job.pictures, job.options)
    try:
        rows = job.format.convert(published)
    except RecursionError as error:
        raise Unusable("the row is nested too deeply") from error
    if not rows:
        raise Unusable("nothing to make a row of")
    published.account(bool(rows[0].images))
    return rows, published.notes


def _short(detail: str, value: object) -> str:
    """A fault's detail and the beginning of its row."""
    try:
        shown = (
            ""
            if isinstance(value, AlignError)
            else json.dumps(value, default=lambda one: f"<{type(one).__name__}>")
        )
    except (ValueError, RecursionError):
        shown = ""
    whole = f"{detail}; {shown}" if detail and shown else detail or shown
    return whole if len(whole) <= 160 else whole[:160] + "..."
