"""What is on disk before a run: what selected stages read of others must be there, or be only for show."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from align.errors import AlignError
from align.pipeline.load import Pipeline, Step
from align.run.state import look, partial_of, read_refusal


def taken_as_they_are(pipeline: Pipeline, chosen: Collection[str]) -> dict[str, str]:
    """The stages that are not selected, and of one whose last attempt ended the rounds what it said."""
    return {step.name: said_before(step) for step in pipeline if step.name not in chosen}


def said_before(step: Step) -> str:
    """What ended the rounds in this stage's last attempt, if it would again; empty for any other stage."""
    is_later = step.slot is not None and step.slot.round > 1
    if not is_later or not read_refusal(partial_of(step.recipe.stage_dir)):
        return ""
    return look(step.recipe).end


def check_reads(pipeline: Pipeline, chosen: Collection[str]) -> None:
    """See that nothing is missing before the first stage runs.

    Raises:
        AlignError: a selected stage needs one that is not selected and has never run.
    """
    folders = {step.name: step.recipe.stage_dir for step in pipeline}
    for step in pipeline:
        if step.name not in chosen or step.left_out:
            continue
        for link in step.reads:
            if not _is_for_show(step, link.key) and _is_unrun(pipeline, link.source, chosen):
                raise AlignError(
                    f"{step.name}.{link.key} reads {link.source!r}, which has not run",
                    where=str(folders[link.source]),
                    fix=f"start with it: --from {link.source}",
                )


def without_unrun(step: Step, pipeline: Pipeline, chosen: Collection[str]) -> tuple[Step, list[str]]:
    """The stage without the keys that are for show and name stages that have never run; and those keys."""
    keys = [
        link.key
        for link in step.reads
        if _is_for_show(step, link.key) and _is_unrun(pipeline, link.source, chosen)
    ]
    if not keys:
        return step, []
    tree = step.recipe.model_dump()
    _remove(tree, keys)
    return replace(step, recipe=type(step.recipe).model_validate(tree)), keys


def _is_unrun(pipeline: Pipeline, name: str, chosen: Collection[str]) -> bool:
    found = next(step for step in pipeline if step.name == name)
    return name not in chosen and not found.recipe.stage_dir.exists()


def _is_for_show(step: Step, key: str) -> bool:
    return any(key == shown or key.startswith((f"{shown}.", f"{shown}[")) for shown in step.recipe.shown_keys)


def _remove(tree: Any, keys: Iterable[str]) -> None:
    """Take dotted keys out; of a list's items the later ones first, so that indices hold."""
    for key in reversed(list(keys)):
        *sections, last = re.findall(r"[^.\[\]]+", key)
        place = tree
        for section in sections:
            place = place[int(section)] if isinstance(place, list) else place[section]
        del place[int(last) if isinstance(place, list) else last]
