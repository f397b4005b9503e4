"""Rows that a run does not train on: its loss on them is a measure of every dev check.

They come from a file, or are taken out of the training rows by picture: rows that share a picture, be it by
way of a third row, stay on one side. Which pictures are drawn depends on their names alone, so it is the same
in every run over the same rows.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from align.dev_check.recipe import DevSection, HeldoutSection
from align.errors import AlignError
from align.inputs.images import resolve_image
from align.inputs.training_data import CheckedRows, DataSection
from align.progress import say
from align.rows.schema import PreferenceRow, SFTRow

R = TypeVar("R", SFTRow, PreferenceRow)
HELDOUT_QUARANTINE = "heldout_quarantine.jsonl"


@dataclass(frozen=True)
class HeldoutItem:
    """A held-out row, as measures see it.

    Attributes:
        kind: an answer, or a pair of answers.
        cluster: the unit that intervals resample: its pictures.
    """

    id: str
    kind: Literal["answer", "pair"]
    cluster: str
    truth: None = None


@dataclass(frozen=True)
class Heldout(Generic[R]):
    """The held-out rows of a run.

    Attributes:
        lengths: tokens of each.
        data: where their pictures are.
        groups: per row, the name of the group of pictures that it belongs to.
    """

    rows: Sequence[R]
    lengths: Sequence[int]
    data: DataSection
    groups: Sequence[str]

    def items(self) -> list[HeldoutItem]:
        """The rows as measures see them."""
        kind = "pair" if isinstance(self.rows[0], PreferenceRow) else "answer"
        return [
            HeldoutItem(f"heldout {row.id}", kind, f"heldout {group}")
            for row, group in zip(self.rows, self.groups, strict=True)
        ]


def hold_out(
    dev: DevSection | None,
    data: DataSection,
    checked: CheckedRows[R],
    read: Callable[[DataSection, str], CheckedRows[R]],
) -> tuple[CheckedRows[R], Heldout[R] | None]:
    """The rows to train on, and the held-out ones; None where the recipe asks for none.

    Args:
        read: reads and checks rows, given where they are and the name of their quarantine file.

    Raises:
        AlignError: held-out pictures that are trained on, or too few rows.
    """
    section = None if dev is None else dev.heldout
    if section is None:
        return checked, None
    if section.path is None:
        return _drawn(section, data, checked)
    root = section.image_root or data.image_root
    own = data.model_copy(update={"path": section.path, "image_root": root})
    found = read(own, HELDOUT_QUARANTINE)
    trained = _pictures(checked.rows, data.image_root)
    both = [row for row in found.rows if trained & _pictures([row], root)]
    if both:
        raise AlignError(
            f"the pictures of {len(both)} held-out rows are trained on, {both[0].images[0]} first",
            where=str(section.path),
            fix="take rows of other pictures, or dev.heldout: {share: 0.05}",
        )
    groups = groups_of(found.rows, root)
    order = sorted(range(len(groups)), key=lambda place: (_order(groups[place]), place))[: section.num_rows]
    return checked, _heldout(found, sorted(order), own, groups)


def groups_of(rows: Sequence[SFTRow | PreferenceRow], root: Path | None) -> list[str]:
    """Per row the name of its group: rows of one group have a picture in common, directly or by others.

    Rows without pictures are groups of their own.
    """
    names = [_names(row, root) or [f"row {row.id}"] for row in rows]
    parent: dict[str, str] = {}

    def first(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for own in names:
        for name in own[1:]:
            low, high = sorted((first(own[0]), first(name)))
            parent[high] = low
    return [first(own[0]) for own in names]


def heldout_values(sums: Mapping[str, float], start: Mapping[str, float], beta: float) -> dict[str, float]:
    """The additive values of one row, from its sums at a check and at step 0.

    >>> heldout_values({"logp": -6.0, "tokens": 3.0}, {}, 0.1)
    {'heldout_loss': 6.0, 'heldout_terms': 3.0}
    >>> same = {"chosen_logp": -5.0, "rejected_logp": -4.0}
    >>> [round(value, 4) for value in heldout_values(same, same, 0.1).values()]
    [0.6931, 1.0, 0.5, 0.0, 1.0]
    """
    if "logp" in sums:
        return {"heldout_loss": -sums["logp"], "heldout_terms": sums["tokens"]}
    moved = {side: sums[side] - start[side] for side in ("chosen_logp", "rejected_logp")}
    margin = beta * (moved["chosen_logp"] - moved["rejected_logp"])
    loss = math.log1p(math.exp(-abs(margin))) + max(-margin, 0.0)
    right = 0.5 if margin == 0 else float(margin > 0)
    return {
        "heldout_loss": loss,
        "heldout_terms": 1.0,
        "heldout_right": right,
        "heldout_margin": margin,
        "heldout_pairs": 1.0,
    }


def _drawn(
    section: HeldoutSection, data: DataSection, checked: CheckedRows[R]
) -> tuple[CheckedRows[R], Heldout[R]]:
    """Whole groups of pictures, until the share of the rows, or `num_rows`, is reached."""
    assert section.share is not None
    groups = groups_of(checked.rows, data.image_root)
    by_group: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        by_group.setdefault(group, []).append(place)
    wanted = section.share * len(groups)
    if section.num_rows is not None:
        wanted = min(wanted, section.num_rows)
    taken: set[int] = set()
    for group in sorted(by_group, key=_order):
        if taken and len(taken) + len(by_group[group]) > wanted:
            break
        taken |= set(by_group[group])
    rest = [place for place in range(len(groups)) if place not in taken]
    if not rest:
        raise AlignError(
            f"all {len(groups)} rows are of one group of pictures: none is left to train on",
            where="dev.heldout.share",
            fix="give held-out rows in a file, dev.heldout.path",
        )
    heldout = _heldout(checked, sorted(taken), data, groups)
    pictures = len(set(heldout.groups))
    say(f"  {len(taken)} of {len(groups)} rows, of {pictures} pictures, are held out of training")
    return checked.take(rest), heldout


def _heldout(
    found: CheckedRows[R], places: Sequence[int], data: DataSection, groups: Sequence[str]
) -> Heldout[R]:
    return Heldout(
        [found.rows[n] for n in places],
        [found.lengths[n] for n in places],
        data,
        [groups[n] for n in places],
    )


def _names(row: SFTRow | PreferenceRow, root: Path | None) -> list[str]:
    """The row's pictures below the root, each under one name however the row spells it."""
    names = row.images if isinstance(row, SFTRow) else [*row.images, *row.rejected_images]
    if root is None:
        return list(names)
    return [os.path.relpath(resolve_image(root, name).resolve(), root.resolve()) for name in names]


def _pictures(rows: Sequence[Any], root: Path | None) -> set[Path]:
    if root is None:
        return set()
    return {(root / name).resolve() for row in rows for name in _names(row, root)}


def _order(group: str) -> str:
    return hashlib.sha256(f"held out {group}".encode()).hexdigest()
