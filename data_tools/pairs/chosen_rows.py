"""The chosen answers of pairs as instruction rows, for an SFT before DPO.

OPA-DPO (Yang et al. 2025, arXiv 2501.09695) trains on its corrected answers first: DPO hardly reaches answers
that its starting policy would never give.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from align.rows.schema import PreferenceRow, SFTRow
from align.rows.writing import RowWriter


class ChosenRows:
    """Writes the row of each pair; without a path it writes nothing.

    Raises:
        OSError: as the file system does.
    """

    def __init__(self, path: Path | None) -> None:
        self._out = None if path is None else RowWriter(SFTRow, path)

    def __enter__(self) -> ChosenRows:
        if self._out is not None:
            self._out.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._out is not None:
            self._out.__exit__(kind, error, trace)

    def write(self, row: PreferenceRow) -> None:
        """The pair's prompt with the chosen answer; spans and scores are left behind."""
        if self._out is None:
            return
        kept = {name: row.meta[name] for name in ("image_id", "image_sha256", "edit") if name in row.meta}
        self._out.write(
            SFTRow(id=f"chosen>{row.id}", images=row.images, messages=[*row.prompt, *row.chosen], meta=kept)
        )
