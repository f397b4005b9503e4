"""Which of a run's checks is kept, and when a run ends early: a rule that noise does not move.

    keep: {most: invention_drop, while: {recall: -1.0, instance_precision: 0, repetition: +0}}

A gain must be proven: its paired interval against step 0 (`dev.level`, 95%) lies off zero. A loss is
believed sooner: a limit is broken when a measure is past it and has moved by more than `DOUBT` standard
errors, which an even checkpoint does once in ten looks.

Choosing the best of many checks on the pictures it is judged by picks noise, so dev pictures are drawn
into two halves:

1. the first half chooses: checks with a gain and no broken limit there, the largest gain first;
2. the second half has the last word on the first of them: its gain must be there too and be real over both
   halves, or nothing is kept, since the others are only second best by the same luck; no limit may be broken
   over both halves, nor contradicted there, or the next one is asked.

Half of the pictures know half as much, so what the second half says of a limit counts where it lies past it
by more than `DOUBT` standard errors; short of that, both halves together know better.

Where nothing is kept the result is step 0: rather nothing than noise. Early stopping looks at the first half
alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from align.dev_check.scores import VIEWS, Change, changes_from_json
from align.dev_check.words import DIGITS, LIMITS, direction, gain_of
from align.errors import AlignError

DOUBT = 1.28
"""Standard errors; one-sided 10%."""
Line = Mapping[str, Any]
"""A line of `dev_log.jsonl`."""


@dataclass(frozen=True)
class Judged:
    """One check under the rule.

    Attributes:
        gain: on the half that chooses, in points; positive is better.
        reasons: why it cannot be kept, in words; empty where it can.
        is_chosen: whether the half that chooses has nothing against it.
        is_confirmed: whether its gain is there on the second half, and real over both.
    """

    step: int
    gain: float
    is_chosen: bool
    is_confirmed: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Kept:
    """What the rule keeps.

    Attributes:
        step: 0 where no check is kept.
        nothing: whether nothing of the training is kept.
        why: in words.
        measures: of the kept check, measure -> change over all pictures.
        judged: every check after step 0, in order.
    """

    step: int
    nothing: bool
    why: str
    measures: Mapping[str, Mapping[str, float]]
    judged: Sequence[Judged] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        refused = {str(one.step): list(one.reasons) for one in self.judged if one.reasons}
        return {
            "step": self.step,
            "nothing": self.nothing,
            "why": self.why,
            "measures": dict(self.measures),
            "refused": refused,
        }


class KeepRule:
    """A recipe's `keep` section, as a judge of log lines.

    Args:
        most: a word of `GAINS`.
        limits: words of `LIMITS` -> the change that is still allowed.
        patience: checks without a gain after which a run ends; None never.
        patience_on: the gain that patience waits for, another word of `GAINS`; None is that of `most` with
            every limit held.
    """

    def __init__(
        self,
        most: str,
        limits: Mapping[str, float],
        patience: int | None = None,
        patience_on: str | None = None,
    ) -> None:
        self.most, self.limits, self.patience = most, dict(limits), patience
        self.gain = gain_of(most)
        self.waits_for = None if patience_on in (None, most) else gain_of(patience_on)

    @property
    def measures(self) -> list[str]:
        """The measures that it speaks of, the gain's first."""
        return list(dict.fromkeys([self.gain.measure, *(LIMITS[word] for word in self.limits)]))

    def check(self, measures: Sequence[str]) -> None:
        """Refuse a rule over what is not measured.

        Raises:
            AlignError: names the word, and what it would need.
        """
        words = {f"keep.most = {self.most}": self.gain.measure}
        words |= {f"keep.while.{word}": LIMITS[word] for word in self.limits}
        if self.waits_for is not None:
            words["keep.patience_on"] = self.waits_for.measure
        for where, name in words.items():
            if name not in measures:
                raise AlignError(
                    f"the dev check does not measure {name}",
                    where=where,
                    fix="give dev.instances for what is in the pictures, dev.questions for vqa, dev.own for "
                    "own, dev.heldout for held-out rows, dev.judge for judge; measured are: "
                    f"{', '.join(measures)}",
                )

    def judge(self, line: Line) -> Judged:
        """One check, by its line alone."""
        views = {view: changes_from_json(line, view) for view in VIEWS}
        gains = {view: self._gain(changes) for view, changes in views.items()}
        missing = [name for name in self.measures if name not in views["all"]]
        against = [f"{name} was not measured at this check" for name in missing]
        against += self._broken(views["first_half"], "the first half")
        if gains["first_half"] <= 0:
            against.insert(0, f"no {self._said()} on the first half")
        reasons = list(against)
        doubt = ""
        if gains["second_half"] <= 0:
            doubt = f"no {self._said()} on the second half"
        elif not self._is_real(views["all"]):
            doubt = f"{self._said()} is within noise: {_shown(views['all'], self.gain.measure)}"
        reasons += [doubt] if doubt and not against else []
        reasons += self._broken(views["second_half"], "the second half", surely=True)
        reasons += self._broken(views["all"], "both halves")
        return Judged(int(line["step"]), gains["first_half"], not against, not doubt, tuple(reasons))

    def decide(self, lines: Sequence[Line]) -> Kept:
        """What is kept of the checks so far; lines in the order of their steps, step 0 first."""
        judged = [self.judge(line) for line in lines if line["step"]]
        order = sorted((one for one in judged if one.is_chosen), key=lambda one: (-one.gain, one.step))
        best = next((one for one in order if not one.is_confirmed or not one.reasons), None)
        if best is None or best.reasons:
            return Kept(0, True, self._nothing(judged), {}, judged)
        line = next(line for line in lines if line["step"] == best.step)
        shown = _shown(changes_from_json(line, "all"), self.gain.measure)
        why = f"most {self._said()} with every limit held: {shown}"
        return Kept(best.step, False, why, line["all"], judged)

    def stops(self, lines: Sequence[Line]) -> int | None:
        """The step at which `patience` ends the run; None where it does not."""
        if self.patience is None:
            return None
        best, waited = 0.0, 0
        for line in lines:
            if not line["step"]:
                continue
            gain = self._awaited(line)
            if gain is not None and gain > best:
                best, waited = gain, 0
                continue
            waited += 1
            if waited >= self.patience:
                return int(line["step"])
        return None

    def _awaited(self, line: Line) -> float | None:
        """The gain that patience waits for, on the half that chooses; None where there can be none."""
        if self.waits_for is None:
            judged = self.judge(line)
            return judged.gain if judged.is_chosen else None
        change = changes_from_json(line, "first_half").get(self.waits_for.measure)
        return None if change is None else self.waits_for.sign * change.delta

    def _gain(self, changes: Mapping[str, Change]) -> float:
        change = changes.get(self.gain.measure)
        return 0.0 if change is None else self.gain.sign * change.delta

    def _is_real(self, changes: Mapping[str, Change]) -> bool:
        change = changes[self.gain.measure]
        return change.ci_low > 0 if self.gain.sign > 0 else change.ci_high < 0

    def _broken(self, changes: Mapping[str, Change], where: str, surely: bool = False) -> list[str]:
        found = []
        for word, limit in self.limits.items():
            change = changes.get(LIMITS[word])
            if change is not None and _is_broken(word, limit, change, surely):
                unit = "%" if word == "length" else ""
                found.append(f"{word} {_shown(changes, LIMITS[word])} on {where}, limit {limit:+g}{unit}")
        return found

    def _said(self) -> str:
        return self.most.replace("_", " ")

    def _nothing(self, judged: Sequence[Judged]) -> str:
        if not judged:
            return "no check after step 0"
        last = max(judged, key=lambda one: one.gain)
        return f"no check can be kept; step {last.step}, best on the first half: {'; '.join(last.reasons)}"


def _is_broken(word: str, limit: float, change: Change, surely: bool) -> bool:
    """Whether the measure is past the limit, by a change that is hardly noise.

    Args:
        surely: the limit itself, not only no change at all, must lie more than `DOUBT` standard errors away.
    """
    doubt = DOUBT * change.se
    if abs(change.delta) <= doubt:
        return False
    slack = doubt if surely else 0.0
    sign = direction(word)
    if sign:
        return sign * change.delta < sign * limit - slack
    start = change.value - change.delta
    return abs(change.delta) > abs(start) * limit / 100 + slack


def _shown(changes: Mapping[str, Change], measure: str) -> str:
    change, digits = changes[measure], DIGITS.get(measure, 1)
    return f"{change.delta:+.{digits}f} [{change.ci_low:+.{digits}f}, {change.ci_high:+.{digits}f}]"
