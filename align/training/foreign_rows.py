"""Training on a file as another tool wrote it: made rows of ours first, in the stage's scratch folder."""

from __future__ import annotations

import os

from align.errors import AlignError
from align.inputs.training_data import DataSection
from align.progress import say
from align.rows.foreign import is_ours, row_reader
from align.rows.schema import PreferenceRow, SFTRow
from align.run.folder import RunFolder

QUARANTINE = "import_quarantine.jsonl"


def readable(section: DataSection, cls: type[SFTRow] | type[PreferenceRow], folder: RunFolder) -> DataSection:
    """The section as it is, or one that names rows of ours made of its file.

    Raises:
        AlignError: a file that no reader knows, without a usable row, or (strict) with a bad one.
    """
    reader = None if is_ours(section.path) else row_reader()
    if reader is None:
        return section
    rank = os.environ.get("RANK", "0")
    into = folder.scratch / f"imported{rank}"
    into.mkdir(parents=True, exist_ok=True)
    quarantine = folder.work / QUARANTINE if folder.is_main else into / QUARANTINE
    found = reader(section.path, cls, section.image_root, into, quarantine, section.max_pixels)
    if found.num_dropped and section.strict:
        raise AlignError(
            f"{found.num_dropped} rows could not be used",
            where=str(section.path),
            fix=f"see {found.quarantine}, or data.strict: false",
        )
    if found.num_dropped:
        say(f"  their reasons: {folder.final / QUARANTINE}")
    return section.model_copy(update={"path": found.path, "image_root": found.image_root})
