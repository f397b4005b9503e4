"""What a run would do, and why, without doing it: from manifests, recipes and the contents of inputs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from align.pipeline.graph import Selection
from align.pipeline.load import Pipeline, Step
from align.pipeline.reading import said_before, taken_as_they_are, without_unrun
from align.run.state import look

_MOST_REASONS = 8
_MOST_KEYS = 3


def describe(pipeline: Pipeline, selection: Selection | None = None) -> str:
    """A table of the selected stages with their state, and below each the reasons for it.

    `complete` is skipped, `stale` is done anew, `partial` is resumed, `to do` has no folder yet, `ended` was
    refused and would be again, which ends the rounds, `left out` lies behind that.
    """
    chosen = (selection or Selection()).of(pipeline.names)
    redone: set[str] = set()
    believed = taken_as_they_are(pipeline, chosen)
    pipeline = pipeline.knowing(believed)
    width = max(map(len, chosen))
    lines = [f"  {'stage':<{width}} {'kind':<13} {'state':<9} folder"]
    for place, name in enumerate(pipeline.names):
        step = pipeline.steps[place]
        if name not in chosen:
            continue
        step, unrun = without_unrun(step, pipeline, chosen)
        state, reasons = _state(step, redone)
        lines.append(f"  {name:<{width}} {step.stage.name:<13} {state:<9} {step.recipe.stage_dir}")
        lines += [f"      without {key}: that stage has not run" for key in unrun]
        lines += [f"      {why}" for why in reasons[:_MOST_REASONS]]
        if len(reasons) > _MOST_REASONS:
            lines.append(f"      and {len(reasons) - _MOST_REASONS} more")
        if state in ("complete", "ended"):
            believed[name] = said_before(step) if state == "ended" else ""
            pipeline = pipeline.knowing(believed)
        elif not step.left_out:
            redone.add(name)
    return "\n".join(lines)


def _state(step: Step, redone: Collection[str]) -> tuple[str, Sequence[str]]:
    """The state in a word and its reasons, when the stages in `redone` are done anew before it."""
    if step.left_out:
        return "left out", [step.left_out]
    found, end = look(step.recipe), said_before(step)
    if found.status == "to do":
        return found.status, found.reasons
    rewritten = _rewritten(step, redone)
    if found.status == "complete" and rewritten:
        return "stale", [*rewritten, "(skipped after all where the same bytes come out)"]
    if end and not rewritten:
        return "ended", [f"here the rounds end: {end}"]
    return found.status, [*rewritten, *found.reasons]


def _rewritten(step: Step, redone: Collection[str]) -> list[str]:
    """A sentence for each stage that will write inputs of this one anew."""
    found = []
    for source in dict.fromkeys(link.source for link in step.reads if link.source in redone):
        keys = [link.key for link in step.reads if link.source == source]
        more = f" and {len(keys) - _MOST_KEYS} more" if len(keys) > _MOST_KEYS else ""
        found.append(f"{source} will rewrite its input {', '.join(keys[:_MOST_KEYS])}{more}")
    return found
