"""Limits on how often one image or one kind of question may occur among instruction rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from pydantic import Field

from align.config.recipe import Strict
from align.rows.schema import SFTRow
from align.rows.tally import Tally


class Caps(Strict):
    """Most rows of one image and of one task, over all kinds together."""

    per_image: int | None = Field(default=None, ge=1, description="most rows of one image; null: any")
    per_task: int | None = Field(
        default=None,
        ge=1,
        description="most rows of one task; a dialogue goes when all of its tasks are full; null: any",
    )


def tasks_of(row: SFTRow) -> list[str]:
    """The row's tasks, such as `templates/count`; its kind alone where it has none."""
    tasks = dict.fromkeys(row.meta.get("tasks", ()))
    return [f"{row.meta['kind']}/{task}" for task in tasks] or [str(row.meta["kind"])]


def within_caps(
    caps: Caps, rows: Sequence[SFTRow], order: Callable[[SFTRow], str], tally: Tally
) -> list[SFTRow]:
    """The rows that the caps let pass, first come in `order` first served; returned as they came."""
    images: Counter[str] = Counter()
    tasks: Counter[str] = Counter()
    kept: set[str] = set()
    for row in sorted(rows, key=order):
        own = tasks_of(row)
        if caps.per_image is not None and any(images[name] >= caps.per_image for name in row.images):
            tally.drop("more than caps.per_image", row.id)
        elif caps.per_task is not None and all(tasks[task] >= caps.per_task for task in own):
            tally.drop("more than caps.per_task", row.id)
        else:
            tally.keep()
            kept.add(row.id)
            images.update(row.images)
            tasks.update(own)
    return [row for row in rows if row.id in kept]
