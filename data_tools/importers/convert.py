"""Published rows to rows of ours: every row read is kept, or quarantined with its reason."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from align.errors import AlignError
from align.progress import Bar
from align.rows.quarantine import Quarantine
from align.rows.tally import Tally
from align.rows.writing import RowWriter
from data_tools.importers.pictures import Pictures
from data_tools.importers.published import Format, Options, Published, Row
from data_tools.importers.sources import Item, open_source
from data_tools.importers.unusable import Unusable


@dataclass(frozen=True)
class Job:
    """One import.

    Attributes:
        source: file, folder or hub id.
        out: `.jsonl` or `.parquet`.
        limit: most published rows to read; None for all.
        split: of a hub dataset.
    """

    format: Format
    source: str
    out: Path
    pictures: Pictures
    options: Options = field(default_factory=Options)
    limit: int | None = None
    split: str = "train"

    @property
    def quarantine_path(self) -> Path:
        """Where rows go that cannot be used."""
        return self.out.with_name(self.out.name + ".quarantine.jsonl")


@dataclass(frozen=True)
class Imported:
    """What came of it: `tally` counts published rows, `num_rows` the rows written."""

    tally: Tally
    num_rows: int


def import_rows(job: Job) -> Imported:
    """Read, convert, write.

    Raises:
        AlignError: a source that cannot be read or breaks off, or no row that can be used; nothing is written
            to `out` then, and the quarantine file tells why.
    """
    source = open_source(job.source, job.format.layout, job.split)
    items = job.format.join(Path(job.source), job.options) if job.format.join else source.items()
    total, unit = (0, "rows") if job.format.join else (source.total, source.unit)
    with ExitStack() as stack:
        quarantine = stack.enter_context(Quarantine(job.quarantine_path, "published rows"))
        bar = stack.enter_context(Bar("importing", total, unit))
        out: RowWriter | None = None
        for number, item in enumerate(islice(items, job.limit)):
            try:
                rows = convert(job, number, item)
                kind = type(rows[0])
                out = out or stack.enter_context(RowWriter(kind, job.out))
                if out.cls is not kind:
                    raise Unusable(f"a {kind.__name__} among {out.cls.__name__}s")
            except Unusable as fault:
                raw = None if isinstance(item.value, AlignError) else item.value
                quarantine.add(item.where, fault.reason, fault.detail, raw)
            else:
                quarantine.tally.keep()
                for row in rows:
                    out.write(row)
            bar.step(max(number + 1 if unit == "rows" else item.done, bar.done) - bar.done)
        if out is None:
            quarantine.tally.show()
            reasons = f"see {job.quarantine_path}" if quarantine.tally.dropped else "the source holds no rows"
            raise AlignError("no row could be used", where=job.source, fix=reasons)
    return Imported(quarantine.tally, out.count)


def convert(job: Job, number: int, item: Item) -> list[Row]:
    """The rows of one published row, never none.

    Raises:
        Unusable: it has to be quarantined.
    """
    if isinstance(item.value, AlignError):
        raise Unusable("not JSON", item.value.what)
    if not isinstance(item.value, dict):
        raise Unusable("the row is no object", type(item.value).__name__)
    name = f"{job.format.name}-{number}"
    rows = job.format.convert(Published(item.value, name, job.format.name, job.pictures, job.options))
    if not rows:
        raise Unusable("nothing to make a row of")
    return rows
