"""Training on a file as another tool wrote it: made rows of ours first, in the stage's scratch folder."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from align.errors import AlignError
from align.inputs.training_data import DataSection
from align.progress import say
from align.rows.foreign import is_ours, row_reader
from align.rows.schema import PreferenceRow, SFTRow
from align.run.folder import RunFolder
from align.training.mixing import Source, mix

HELDOUT = "heldout.jsonl"


@dataclass(frozen=True)
class Readable:
    """Data as rows of ours.

    Attributes:
        section: names one file of them.
        sets: what came from each of several sets, for the manifest; empty for one file.
    """

    section: DataSection
    sets: list[dict[str, Any]]


def readable(section: DataSection, cls: type[SFTRow] | type[PreferenceRow], folder: RunFolder) -> Readable:
    """The section as it is, or one that names rows of ours made of its file or files.

    Raises:
        AlignError: a file that no reader knows, without a usable row, or (strict) with a bad one.
    """
    if not section.sets:
        return Readable(_converted(section, cls, folder, ""), [])
    sources = []
    for number, (name, one) in enumerate(zip(section.names(), section.sets, strict=True)):
        root = one.image_root or section.image_root
        own = section.model_copy(update={"path": one.path, "image_root": root})
        found, bad = _counted(own, cls, folder, f"_{number}")
        sources.append(Source(name, found.path, found.image_root, one.share, one.cap, bad))
    into = _scratch(folder, "mixed")
    heldout = folder.work / HELDOUT if folder.is_main else into / HELDOUT
    root, table = mix(cls, sources, section.seed, section.heldout_share, into / "rows.jsonl", heldout)
    bad_rows = sum(line.bad for line in table)
    if bad_rows and section.strict:
        raise AlignError(
            f"{bad_rows} bad rows in the sets", where="data.sets", fix="data.strict: false takes the others"
        )
    if not section.heldout_share:
        heldout.unlink(missing_ok=True)
    changed = {"path": into / "rows.jsonl", "image_root": root, "sets": []}
    return Readable(section.model_copy(update=changed), [asdict(line) for line in table])


def _scratch(folder: RunFolder, name: str) -> Path:
    """An own folder of this process for rows that are made here."""
    into = folder.scratch / f"{name}{os.environ.get('RANK', '0')}"
    into.mkdir(parents=True, exist_ok=True)
    return into


def _converted(
    section: DataSection, cls: type[SFTRow] | type[PreferenceRow], folder: RunFolder, suffix: str
) -> DataSection:
    return _counted(section, cls, folder, suffix)[0]


def _counted(
    section: DataSection, cls: type[SFTRow] | type[PreferenceRow], folder: RunFolder, suffix: str
) -> tuple[DataSection, int]:
    """The section with rows of ours, and how many of its file's rows could not be used."""
    reader = None if is_ours(section.path) else row_reader()
    if reader is None:
        return section, 0
    into = _scratch(folder, f"imported{suffix}_")
    name = f"import_quarantine{suffix}.jsonl"
    quarantine = folder.work / name if folder.is_main else into / name
    found = reader(section.path, cls, section.image_root, into, quarantine, section.max_pixels)
    if found.num_dropped and section.strict:
        raise AlignError(
            f"{found.num_dropped} rows could not be used",
            where=str(section.path),
            fix=f"see {found.quarantine}, or data.strict: false",
        )
    if found.num_dropped:
        say(f"  their reasons: {folder.final / name}")
    changed = {"path": found.path, "image_root": found.image_root}
    return section.model_copy(update=changed), found.num_dropped
