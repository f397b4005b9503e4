"""The headline: what happened to inventions and, in one sentence, every guard that broke.

`COSTS` ranks the guards. The heaviest broken one gives the verdict its status; all are named in that order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from evals.report.findings import Finding
from evals.report.wording import join_words

Status = Literal[
    "better", "shorter", "inventing_by_object", "recall_lost", "repeats", "counts_worse", "answers_worse",
    "fooled_more", "captions_worse", "longer", "grammar_worse", "judge_prefers_before", "not_shown",
    "no_effect", "worse", "no_captions", "single",
]  # fmt: skip
Subject = Literal["model", "answers", "none"]
# More broken guards than this are counted and no longer named.
_MAX_NAMED = 4


@dataclass(frozen=True)
class Cost:
    """A guard and what is said where it broke.

    Attributes:
        gate, finding: its keys in the verdict.
        subject: whose verb `words` begins with: the checkpoint's (`names fewer`), its answers' (`count
            worse`), or neither's, when `words` is a sentence of its own.
        words: what is said in the headline of a broken guard, from its finding.
        open_words: what the guard is about, as a noun.
        implied_by: gates of guards beside which it says nothing new: a tail where the mean itself got worse.
    """

    gate: str
    finding: str
    status: Status
    subject: Subject
    words: Callable[[Finding], str]
    open_words: str
    implied_by: tuple[str, ...] = ()


def times(before: float, after: float) -> str:
    """How much more often something happens, in words.

    >>> [times(*pair) for pair in ((41, 83), (20, 66), (20, 30), (2, 9.1), (0.2, 10))]
    ['twice as often', 'three times as often', 'more often', '5 times as often', 'far more often']
    """
    if before < 0.5:
        return "far more often"
    ratio = after / before
    if ratio < 1.75:
        return "more often"
    if ratio < 2.5:
        return "twice as often"
    if ratio < 3.5:
        return "three times as often"
    return f"{ratio:.0f} times as often" if ratio < 20 else "far more often"


def _fixed(words: str) -> Callable[[Finding], str]:
    return lambda _: words


def _first_broken(finding: Finding) -> tuple[str, Mapping[str, Any]]:
    """The first measure of a guard that broke it, and its numbers."""
    broken = ((key, item) for key, item in finding.numbers.items() if isinstance(item, Mapping))
    return next((key, item) for key, item in broken if item["passed"] is False)


def _repetition(finding: Finding) -> str:
    name, numbers = _first_broken(finding)
    what = "themselves" if name.rpartition("/")[2] == "repeated_captions" else "phrases"
    return f"repeat {what} {times(numbers['before'], numbers['after'])}"


def _counting(finding: Finding) -> str:
    """Fewer of the named instances are there: by the numbers unless those are known to hold."""
    numbers = [
        (key.rpartition("/")[2], item["passed"])
        for key, item in finding.numbers.items()
        if isinstance(item, Mapping)
    ]
    others = [passed for key, passed in numbers if key != "instance_precision"]
    if others and all(passed is True for passed in others):
        return "name more that is not there"
    return "count worse"


def _answering(finding: Finding) -> str:
    is_clear = (finding.numbers.get("any_worse")) is True
    return "answers questions worse" if is_clear else "is not shown to answer questions as well"


COSTS = (
    Cost("not_only_shorter", "length", "shorter", "model", _fixed("says less"), "length"),
    Cost("fewer_by_object", "invention_by_object", "inventing_by_object", "answers",
         _fixed("name more different objects that are not there"), "invention by distinct object"),
    Cost("recall_kept", "recall", "recall_lost", "model", _fixed("names fewer that are there"), "recall"),
    Cost("instances_named", "instance_recall", "recall_lost", "answers",
         _fixed("name fewer of the things that are there"), "instance recall", ("recall_kept",)),
    Cost("not_repeating", "repetition", "repeats", "answers", _repetition, "repetition"),
    Cost("counting_kept", "counting", "counts_worse", "answers", _counting, "counting"),
    Cost("vqa_not_inferior", "vqa", "answers_worse", "model", _answering, "question answering"),
    Cost("not_fooled_more", "probing", "fooled_more", "model", _fixed("is fooled more often when asked"),
         "probing"),
    Cost("captions_not_worse", "captions_worse", "captions_worse", "none",
         _fixed("more captions get worse than better"), "caption by caption",
         ("fewer_by_object", "counting_kept")),
    Cost("not_longer", "longer", "longer", "answers",
         lambda finding: f"grow by {finding.numbers['growth_percent']:.0f}%", "length"),
    Cost("grammar_kept", "grammar", "grammar_worse", "answers",
         lambda finding: f"break grammar {times(*_sides(_first_broken(finding)[1]))}", "grammar"),
    Cost("judge_agrees", "judge", "judge_prefers_before", "none",
         lambda finding: f"a judge prefers {finding.numbers['before']}'s answers", "a judge's preference"),
)  # fmt: skip
"""From the heaviest: what explains the whole gain away, then what makes answers less true, then abilities,
then form."""


def _sides(numbers: Mapping[str, Any]) -> tuple[float, float]:
    return numbers["before"], numbers["after"]


def broken_costs(gates: Mapping[str, bool | None]) -> list[Cost]:
    """The guards that broke, the heaviest first."""
    return [cost for cost in COSTS if gates.get(cost.gate) is False]


def without_implied(costs: Sequence[Cost]) -> list[Cost]:
    """Without those that another one says already, see `Cost.implied_by`."""
    gates = {cost.gate for cost in costs}
    return [cost for cost in costs if not gates & {*cost.implied_by}]


def leaning(found: Mapping[str, Finding], gates: Mapping[str, bool | None]) -> list[Cost]:
    """Guards that cannot tell although the measured loss is beyond the margin: it may be chance, or not."""
    return [
        cost
        for cost in COSTS
        if gates.get(cost.gate) is None and cost.finding in found and found[cost.finding].numbers.get("leans")
    ]


def say_costs(costs: Sequence[Cost], found: Mapping[str, Finding], after: str, opening: Subject) -> str:
    """The broken guards as one clause: `answers repeat themselves twice as often and count worse`.

    Args:
        costs: the heaviest first; beyond a handful they are counted.
        opening: what the sentence before has as its subject: the checkpoint's name (`model`) or nothing.
    """
    costs = without_implied(costs)
    named = costs if len(costs) <= _MAX_NAMED else costs[: _MAX_NAMED - 1]
    spoken: list[tuple[Subject, str]] = [(cost.subject, cost.words(found[cost.finding])) for cost in named]
    parts = []
    for place, (_, run) in enumerate(groupby(spoken, key=lambda item: item[0])):
        group = list(run)
        subject, words = group[0][0], join_words([text for _, text in group])
        parts.append(_with_subject(subject, words, after, opening if place == 0 else None))
    if rest := len(costs) - len(named):
        parts.append(f"{rest} more {'guard breaks' if rest == 1 else 'guards break'}")
    if len(parts) < 3:
        return ", and ".join(parts)
    return ", ".join(parts[:-1]) + f", and {parts[-1]}"


def _with_subject(subject: Subject, words: str, after: str, opening: Subject | None) -> str:
    if subject == "none":
        return words
    if opening == "model":  # the sentence already has the checkpoint as its subject
        return words if subject == "model" else f"answers {words}"
    if opening is not None:
        return f"{after} {words}" if subject == "model" else f"{after}'s answers {words}"
    return f"it {words}" if subject == "model" else f"its answers {words}"
