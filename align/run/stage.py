"""A stage from recipe to finished folder: what all stages do around their own work.

    def run(recipe: Recipe) -> RunFolder:
        return run_stage(recipe, {"pairs": recipe.pairs}, lambda folder: _work(recipe, folder))

`_work` writes into `folder.work` and says what it did, as a `Done`. What it leaves out of its input is
counted in `dropped.json`, and a row that could not be used stands in `quarantine.jsonl`; both have one shape
in every stage's folder (`align.rows.tally`, `align.rows.quarantine`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.config.recipe import StageRecipe
from align.errors import AlignError
from align.rows.quarantine import Quarantine
from align.rows.tally import Tally
from align.run.folder import RunFolder
from align.run.state import Input

DROPPED = "dropped.json"
QUARANTINE = "quarantine.jsonl"


@dataclass(frozen=True)
class Done:
    """What a stage's work came to.

    Attributes:
        metrics: for the manifest.
        next_step: the command to run next; empty for an end.
        seeds: by what they draw; None: the recipe's one.
    """

    metrics: Mapping[str, Any]
    next_step: str = ""
    seeds: Mapping[str, int] | None = None


def run_stage(
    recipe: StageRecipe, inputs: Mapping[str, Input], work: Callable[[RunFolder], Done]
) -> RunFolder:
    """Do the work, unless a finished folder of this recipe and these inputs is there; the finished folder.

    Args:
        inputs: name -> file, folder or model that the stage reads.
        work: called at most once, inside the folder; what it raises leaves a `.partial` to resume.

    Raises:
        AlignError: an input that does not exist, another process at the same work, or what `work` raises.
    """
    folder = RunFolder.open(recipe, inputs)
    if folder.is_complete:
        return folder
    with folder:
        done = work(folder)
        folder.complete(metrics=done.metrics, next_step=done.next_step, seeds=done.seeds)
    return folder


def write_dropped(out: Path, tallies: Iterable[Tally]) -> None:
    """Write `dropped.json` in `out`, an entry a tally: `kept`, and by reason `count` and `examples`."""
    record = {tally.what: tally.to_json() for tally in tallies}
    text = json.dumps(record, indent=1, sort_keys=True)
    (out / DROPPED).write_text(text + "\n", encoding="utf-8")


def open_quarantine(
    folder: RunFolder, what: str, refused: AlignError | None = None, name: str = QUARANTINE
) -> Quarantine:
    """The stage's file of rows that could not be used; see `Quarantine` for the rest."""
    return Quarantine(folder.work / name if folder.is_main else None, what, refused)
