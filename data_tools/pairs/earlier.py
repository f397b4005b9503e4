"""A share of the pairs of earlier rounds beside the new ones: a round then forgets less of what they taught.

The earlier answers are no longer what the policy says, so they are a reminder and not the lesson: a share of
the whole, drawn by the pairs' content and the seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from align.rows.schema import PreferenceRow, read_rows
from data_tools.material.seeded_order import seeded_place

EARLIER = "earlier"
"""In `meta` of a pair that came from an earlier round: the name of the stage's folder there."""


def earlier_inputs(sources: Sequence[Path]) -> dict[str, str | Path]:
    """The sources by name, for a stage's input digests."""
    return {f"earlier_{number}": path for number, path in enumerate(sources)}


def earlier_rows(sources: Sequence[Path], share: float, new: int, seed: int) -> Iterator[PreferenceRow]:
    """Pairs of earlier rounds, in the order of their files.

    Args:
        sources: files of pairs, or folders of finished pairs stages.
        share: of earlier pairs among all, below 1; fewer where the sources hold no more.
        new: how many pairs the others are.
        seed: what is drawn depends on it and on the pairs' ids alone.

    Yields:
        Rows whose id begins with the source's name, since two rounds ask the same prompts. What a source
        itself took from an earlier one is left to that one.
    """
    wanted = round(new * share / (1 - share))
    names = [f"{_name(path)}/{row.id}" for path in sources for row in _own_rows(path)]
    taken = set(sorted(names, key=lambda name: seeded_place(seed, name))[:wanted])
    for path in sources:
        for row in _own_rows(path):
            name = f"{_name(path)}/{row.id}"
            if name in taken:
                yield row.model_copy(update={"id": name, "meta": {**row.meta, EARLIER: _name(path)}})


def _own_rows(path: Path) -> Iterator[PreferenceRow]:
    file = path / "pairs.parquet" if path.is_dir() else path
    return (row for row in read_rows(PreferenceRow, file) if EARLIER not in row.meta)


def _name(path: Path) -> str:
    return path.name if path.is_dir() else path.parent.name
