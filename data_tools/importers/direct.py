"""A file of any known format read by a stage itself: announced to `align` in `align.row_readers`."""

from __future__ import annotations

from pathlib import Path

from align.errors import AlignError
from align.progress import say
from align.rows.foreign import Converted
from align.rows.schema import PreferenceRow, SFTRow
from data_tools.importers.convert import Job, import_rows
from data_tools.importers.pictures import Pictures
from data_tools.importers.recognise import holds_pictures, recognise


def read(
    path: Path,
    cls: type[SFTRow] | type[PreferenceRow],
    image_root: Path | None,
    into: Path,
    quarantine: Path,
    max_pixels: int,
) -> Converted:
    """Rows of ours, as `align.rows.foreign.RowReader` describes it.

    Raises:
        AlignError: an unknown format, rows of the other stage, no usable row, or nearly no picture found.
    """
    chosen = recognise(str(path))
    say(f"took {path} for {chosen.name}: {chosen.what}")
    beside = path if path.is_dir() else path.parent
    root = image_root or (into / "pictures" if holds_pictures(chosen, str(path)) else beside)
    job = Job(chosen, str(path), into / "rows.jsonl", Pictures(root, max_pixels=max_pixels), bad=quarantine)
    imported = import_rows(job)
    imported.show()
    imported.check_pictures(root, "data.image_root=DIR; or `align import` with --strip or --prefix")
    say(f"  for a file to keep: align import {chosen.name} {path} rows.parquet --image_root {root}")
    if imported.kind is not cls:
        pairs = imported.kind is PreferenceRow
        raise AlignError(
            "these are preference pairs, not instruction rows"
            if pairs
            else "these are instruction rows, not preference pairs",
            where=str(path),
            fix=f"train on them with `align {'dpo' if pairs else 'sft'}`",
        )
    seen = root if imported.num_with_images else image_root
    return Converted(job.out, seen, imported.tally.dropped.total(), job.quarantine_path)
