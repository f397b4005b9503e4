"""Running the stages in order: one vLLM server a checkpoint, each round by what the one before made."""

from __future__ import annotations

import time
from collections.abc import Sequence

from align.errors import EndOfRounds
from align.pipeline.graph import Selection
from align.pipeline.load import Pipeline, Step
from align.pipeline.reading import check_reads, said_before, taken_as_they_are, without_unrun
from align.pipeline.round_end import Believed, write_rounds
from align.progress import say
from align.run.folder import RunFolder
from align.serving.server import server_pool, stop_servers

_TRAINING = ("sft", "dpo")


def run_pipeline(pipeline: Pipeline, selection: Selection | None = None) -> list[RunFolder]:
    """Run the selected stages in order; complete ones are skipped, an interrupted one resumes.

    Stages that are not selected are taken as they are. After each stage of a round the pipeline is read
    again: what a round made decides what follows. A stage of round 2 or later that raises `EndOfRounds` ends
    the rounds and not the run.

    Raises:
        AlignError: a selected stage reads one that is not and has never run.
        EndOfRounds: of a stage of round 1, or of none.
    """
    chosen = (selection or Selection()).of(pipeline.names)
    believed = taken_as_they_are(pipeline, chosen)
    pipeline = _knowing(pipeline, believed)
    check_reads(pipeline, chosen)
    clock = _Clock([step for step in pipeline if step.name in chosen])
    folders: list[RunFolder] = []
    told = False
    with server_pool():
        for place, name in enumerate(pipeline.names):
            step = pipeline.steps[place]
            if name not in chosen:
                continue
            if pipeline.loop is not None and step.slot is not None and step.slot.is_after and not told:
                told = bool(write_rounds(pipeline.loop))
            where = f"\n[{chosen.index(name) + 1}/{len(chosen)}] {name}: "
            if step.left_out:
                say(f"{where}left out, {step.left_out}")
                continue
            step, unrun = without_unrun(step, pipeline, chosen)
            believed[name] = said_before(step)
            if believed[name]:
                say(f"{where}its last attempt ended the rounds, and would again: nothing to do")
            else:
                try:
                    folders.append(_run_step(step, where, clock, unrun))
                except EndOfRounds as error:
                    if step.slot is None or step.slot.round < 2:
                        raise
                    believed[name] = error.what
            pipeline = _knowing(pipeline, believed)
    say(f"\nall {len(folders)} stages complete in {clock.total()}")
    return folders


def _knowing(pipeline: Pipeline, believed: Believed) -> Pipeline:
    """The pipeline as it stands now; an end of its rounds is told once, when it comes."""
    known = pipeline.knowing(believed)
    if known.loop is not None and known.loop != pipeline.loop:
        say(f"  {known.loop.told_end()}")
        write_rounds(known.loop)
    return known


def _run_step(step: Step, where: str, clock: _Clock, unrun: Sequence[str]) -> RunFolder:
    say(f"{where}{step.about or _first_line(step.stage.help)}{clock.left()}")
    if unrun:
        say(f"  without {', '.join(unrun)}: those stages have not run")
    if step.stage.name in _TRAINING:
        stop_servers()  # training needs the cores, or the GPU, that a server would hold
    started = time.monotonic()
    folder = step.stage.run(step.recipe)
    clock.finished(step, time.monotonic() - started)
    return folder


class _Clock:
    """Time left, from the minutes in the pipeline file scaled by this machine's pace so far."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._left = sum(step.minutes for step in steps)
        self._expected = self._spent = 0.0
        self._start = time.monotonic()

    def left(self) -> str:
        pace = self._spent / self._expected if self._expected >= 0.5 else 1.0
        return f"  (about {max(1, round(self._left * pace))} min left in all)" if self._left else ""

    def finished(self, step: Step, seconds: float) -> None:
        self._left -= step.minutes
        if seconds > 3:  # a skipped stage says nothing about the pace
            self._expected += step.minutes
            self._spent += seconds / 60

    def total(self) -> str:
        return f"{(time.monotonic() - self._start) / 60:.1f} min"


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""
