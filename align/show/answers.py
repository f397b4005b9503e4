"""The answers that verdicts are about, so that a verdict is shown with picture, prompt and text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from align.errors import AlignError
from align.rows.schema import BaseRow, Candidate, Verdict, read_rows
from align.show.views import View, view


def stage_setting(file: Path, key: str) -> Path | None:
    """A path that the recipe beside a stage's file names (`candidates`, `image_root`), if it is there."""
    recipe = file.parent / "recipe.yaml"
    if not recipe.is_file():
        return None
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        found = OmegaConf.select(OmegaConf.load(recipe), key)
    except (OmegaConfBaseException, YAMLError, OSError):
        return None
    return Path(found) if isinstance(found, str) and Path(found).exists() else None


def candidates_of(rows: Iterable[BaseRow], file: Path | None) -> dict[str, Candidate]:
    """The candidates of these verdicts, by id; read in one pass that ends with the last of them.

    Raises:
        AlignError: the file cannot be read.
    """
    wanted = {row.candidate_id for row in rows if isinstance(row, Verdict)}
    found: dict[str, Candidate] = {}
    if file is None or not wanted:
        return found
    for row in read_rows(Candidate, file, lambda where, reason, raw: None):
        if row.id in wanted:
            found[row.id] = row
            if len(found) == len(wanted):
                break
    return found


def check_candidates(file: Path | None) -> None:
    """
    Raises:
        AlignError: a named file that is not there.
    """
    if file is not None and not file.is_file():
        raise AlignError(
            f"no such file: {file}", where="--candidates", fix="name the candidates of the verdicts"
        )


def view_with(row: BaseRow, candidates: dict[str, Candidate]) -> View:
    """The view of a row; a verdict's has its answer's pictures and texts too."""
    shown = view(row)
    answer = candidates.get(row.candidate_id) if isinstance(row, Verdict) else None
    if answer is None:
        return shown
    said: Sequence[tuple[str, str]] = view(answer).texts
    return replace(shown, images=answer.images, texts=[*said, *shown.texts])
