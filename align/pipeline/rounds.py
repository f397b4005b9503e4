"""Rounds of preference training: what `rounds` and `round` in a pipeline file lay out, and what ends them.

    rounds: 3
    round:
      stages: [sample, judge, pairs, dpo, dpo_merged, generate_dpo]
      start: ${run_dir}/sft_merged/checkpoint
      result: ${run_dir}/dpo_merged/checkpoint
      min_agreement: 0.6
      by_round: {sample: {sampling: {temperature: [0.7, 0.8]}}}

The sections that `stages` names, one behind the other in the file, are round 1. Round 2 is the same sections
as stages of their own, `round2_sample` and so on, with these differences: what lies in the folder of a stage
of the round lies in this round's folder; `${round.model}` is the checkpoint that the round before made; the
seed is 100 higher; `by_round` gives values by round, the last one for all that follow; and a section
`round2_dpo` overrides what it names. `${round.number}` counts from 1, `${round.earlier.pairs}` lists that
stage's folders in the rounds before.

The loop ends when DPO's keep rule kept nothing (`kept.nothing` in a manifest's metrics), when policy and
judge have drifted apart since round 1 (`min_agreement`, `max_agreement_drop`), or when a stage of round 2 or
later raises `align.errors.EndOfRounds`: too few pairs, a judge near chance. The rest of that round and all
later ones are left out, and the last kept checkpoint stands. For the stages behind the loop `${run_dir}/dpo`
then means the last kept round's, in a list those of all rounds that came so far, and `${round.model}` and
`result` mean the last kept checkpoint, which is `start` where no round was kept; what does not exist is left
out. `run_dir/rounds.json` tells how it went.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from pydantic import Field

from align.config.recipe import Strict, nearest, validate
from align.errors import RecipeError
from align.pipeline.graph import stage_at

SEED_STEP = 100
"""Added to the seed from round to round; not 1, or round 2 of seed 0 would draw as round 1 of seed 1."""
_SETTLED = "\ue000"  # before a path that already names its round; a private character, in no file's name
_LEFT_OUT = object()


class RoundSection(Strict):
    """The `round` section of a pipeline file."""

    stages: list[str] = Field(
        min_length=1, description="sections that make a round, as they stand in the file"
    )
    start: str = Field(description="checkpoint that round 1 starts from: a folder, or an id on the hub")
    result: str = Field(description="checkpoint that a round makes, in the folder of one of its stages")
    min_agreement: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="the loop ends where the lower bound of the judge's balanced accuracy is below this",
    )
    max_agreement_drop: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="the loop ends where that accuracy's whole interval is below round 1's value minus this",
    )
    by_round: dict[str, Any] = Field(
        default={}, description="stage -> its keys, each with a list of values, one a round"
    )


@dataclass(frozen=True)
class Slot:
    """One stage to be: its name, the section it is made of, and where it stands.

    Attributes:
        round: from 1; 0 outside the loop.
        is_after: behind the loop.
    """

    name: str
    section: str
    round: int = 0
    is_after: bool = False


@dataclass(frozen=True)
class Ended:
    """Which stage of which round ended the loop, and why.

    Attributes:
        is_whole: whether that stage finished its folder; one that raised `EndOfRounds` did not.
    """

    round: int
    stage: str
    why: str
    is_whole: bool = True


@dataclass(frozen=True)
class Loop:
    """The rounds that are asked for, and what is known of them so far.

    Attributes:
        asked: `rounds` of the file.
        ended: None while none has ended it; the rounds that nothing is known of count as kept.
    """

    section: RoundSection
    asked: int
    run_dir: Path
    ended: Ended | None = None

    @property
    def kept(self) -> int:
        """The last kept round; 0 where none was kept."""
        return self.asked if self.ended is None else self.ended.round - 1

    def name(self, stage: str, number: int) -> str:
        """The stage's name in a round."""
        return stage if number == 1 else f"round{number}_{stage}"

    def checkpoint(self, number: int) -> str:
        """What a round made; of round 0, what the first one starts from."""
        return self.section.start if number == 0 else self._in_round(self.section.result, number)

    def came(self, stage: str, number: int) -> bool:
        """Whether the loop reaches this stage of this round, and the stage finishes."""
        if self.ended is None or number < self.ended.round:
            return True
        order = self.section.stages
        reached = order.index(self.ended.stage) + self.ended.is_whole
        return number == self.ended.round and order.index(stage) < reached

    def why_left_out(self, slot: Slot) -> str:
        """Why a stage of the loop does not run; empty for one that does."""
        if self.ended is None or not slot.round or self.came(slot.section, slot.round):
            return ""
        return f"round {self.ended.round} ended the loop: {self.ended.why}"

    def told_end(self) -> str:
        """What ended the loop and what its result is, for the terminal; empty while none has."""
        if self.ended is None:
            return ""
        whose = f"round {self.kept}'s" if self.kept else "what round 1 started from"
        result = f"{self.checkpoint(self.kept)} ({whose})"
        return f"round {self.ended.round} ends the rounds: {self.ended.why}\n  their result is {result}"

    def variables(self, slot: Slot) -> dict[str, Any]:
        """What `${round...}` means in a stage."""
        before = slot.round - 1 if slot.round else self.kept if slot.is_after else 0
        earlier = {
            stage: [f"{_SETTLED}{self.run_dir / self.name(stage, number)}" for number in range(1, before + 1)]
            for stage in self.section.stages
        }
        model = _SETTLED + self.checkpoint(before)
        return {"number": slot.round or before, "model": model, "earlier": earlier}

    def values_of(self, slot: Slot) -> dict[str, Any]:
        """The keys that `by_round` gives this stage."""
        keys = self.section.by_round.get(slot.section, {}) if slot.round else {}
        return _picked(keys, slot.round, f"round.by_round.{slot.section}")

    def redirect(self, value: Any, slot: Slot) -> Any:
        """A stage's resolved keys, with what lies in folders of the round pointing to the right round."""
        if isinstance(value, Mapping):
            moved = {key: self.redirect(item, slot) for key, item in value.items()}
            return {key: item for key, item in moved.items() if item is not _LEFT_OUT}
        if isinstance(value, list):
            return [moved for item in value for moved in self._listed(item, slot)]
        return self._moved(value, slot) if isinstance(value, str) else value

    def _listed(self, item: Any, slot: Slot) -> list[Any]:
        lies_in = stage_at(item, self.run_dir) if isinstance(item, str) and slot.is_after else None
        if lies_in is None or lies_in[0] not in self.section.stages:
            moved = self.redirect(item, slot)
            return [] if moved is _LEFT_OUT else [moved]
        rounds = range(1, self.asked + 1)
        return [self._in_round(item, number) for number in rounds if self.came(lies_in[0], number)]

    def _moved(self, text: str, slot: Slot) -> Any:
        if _SETTLED in text:
            return text.replace(_SETTLED, "")
        lies_in = stage_at(text, self.run_dir)
        if lies_in is None or lies_in[0] not in self.section.stages:
            return text
        if not slot.is_after:
            return self._in_round(text, slot.round)
        if PurePath(text) == PurePath(self.section.result):
            return self.checkpoint(self.kept)
        last = max(self.kept, 1)
        return self._in_round(text, last) if self.came(lies_in[0], last) else _LEFT_OUT

    def _in_round(self, path: str, number: int) -> str:
        lies_in = stage_at(path, self.run_dir)
        if number <= 1 or lies_in is None:
            return path
        return str(self.run_dir / self.name(lies_in[0], number) / lies_in[1])


def read_loop(asked: Any, section: Any, names: Sequence[str], run_dir: Path, where: str) -> Loop | None:
    """The loop of a pipeline file; None for a file without `round`.

    Args:
        asked: the value of `rounds`.
        section: the resolved one of `round`; None without.
        names: the file's sections, in order.

    Raises:
        RecipeError: rounds without a `round` section, or one that does not fit the file's stages.
    """
    if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
        raise RecipeError(f"rounds = {asked!r}: must be a whole number from 1", where=where)
    if section is None:
        if asked > 1:
            raise RecipeError(
                f"rounds = {asked}, but no section `round` says what makes one",
                where=where,
                fix="add round: {stages: [...], start: CHECKPOINT, result: CHECKPOINT}",
            )
        return None
    loop = Loop(validate(RoundSection, section, f"{where}, section round"), asked, run_dir)
    _check_stages(loop, names, where)
    return loop


def slots(names: Sequence[str], loop: Loop | None) -> list[Slot]:
    """The stages to be, in the order to run: the file's sections, those of the round once a round."""
    if loop is None:
        return [Slot(name, name) for name in names]
    stages = loop.section.stages
    start = names.index(stages[0])
    rounds = range(1, loop.asked + 1)
    within = [Slot(loop.name(stage, number), stage, number) for number in rounds for stage in stages]
    before, after = names[:start], names[start + len(stages) :]
    return [
        *(Slot(name, name) for name in before),
        *within,
        *(Slot(name, name, is_after=True) for name in after),
    ]


def _picked(keys: Any, number: int, where: str) -> Any:
    if isinstance(keys, Mapping):
        return {key: _picked(value, number, f"{where}.{key}") for key, value in keys.items()}
    if not isinstance(keys, list) or not keys:
        raise RecipeError(f"{where} = {keys!r}: must be a list, a value for each round")
    return keys[min(number, len(keys)) - 1]


def _check_stages(loop: Loop, names: Sequence[str], where: str) -> None:
    section = loop.section
    for stage in (*section.stages, *section.by_round):
        if stage not in names:
            raise RecipeError(f"round: no stage {stage!r} in this file{nearest(stage, names)}", where=where)
    start = list(names).index(section.stages[0])
    if list(names[start : start + len(section.stages)]) != section.stages:
        raise RecipeError(
            f"round.stages = {section.stages}: these sections must stand one behind the other",
            where=where,
            fix="name them in the file's order, and move other sections before or behind them",
        )
    if outside := [stage for stage in section.by_round if stage not in section.stages]:
        raise RecipeError(f"round.by_round.{outside[0]}: not one of round.stages", where=where)
    lies_in = stage_at(section.result, loop.run_dir)
    if lies_in is None or lies_in[0] not in section.stages:
        raise RecipeError(f"round.result = {section.result}: not in a folder of round.stages", where=where)
