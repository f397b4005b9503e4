"""What a verdict guards beside the published numbers: each measure that must hold while inventions fall.

A guard has three values. It *holds* when the whole paired 95% interval stays on the good side of its margin.
It is *broken* when the loss is beyond the margin and beyond chance (the interval leaves zero out). Otherwise
the scores *cannot tell*. The first measure of a guard decides whether it holds; the others can only break it,
so that a measure with few cases does not leave the guard open.

Measures are asked for by name, in the tasks that look for inventions: a task that does not have one is not
guarded by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.report.findings import Finding, Tone, brief_change, change_numbers, main_lines, shown, told_changes
from evals.report.load import Results, whole_of
from evals.report.margins import Margins
from evals.report.metric import Metric, shown_name
from evals.report.wording import join_words, points, signed


@dataclass(frozen=True)
class Guard:
    """Measures that must not get worse.

    Attributes:
        key: of the finding.
        measures: metric's name -> the field of `Margins` that it is held to; the first that is there decides.
    """

    key: str
    title: str
    measures: Mapping[str, str]


GUARDED = (
    Guard("invention_by_object", "Invented, each object once", {"distinct_invention": "invention"}),
    Guard("instance_recall", "True instances", {"instance_recall": "recall"}),
    Guard("repetition", "Repetition", {"repeated_captions": "repetition", "repeated_3grams": "repetition"}),
    Guard(
        "counting",
        "Counting",
        {
            "instance_precision": "instance_precision",
            "overcounted": "counting",
            "number_accuracy": "counting",
        },
    ),
    Guard("grammar", "Grammar", {"broken_captions": "grammar"}),
)
"""In no order: `evals.report.headline` ranks them."""
GUARDED_MEASURES = frozenset(name for guard in GUARDED for name in guard.measures)
_TONES: Mapping[bool | None, Tone] = {True: "good", False: "bad", None: "warn"}


def guard_measures(results: Results, margins: Margins) -> list[Finding]:
    """A finding for each guard whose measures the scores have."""
    found = (_guard(results, guard, margins) for guard in GUARDED)
    return [finding for finding in found if finding is not None]


def outcome(line: Metric, margin: float) -> bool | None:
    """Whether a measure holds, see the module; `margin` is on the line's own scale.

    A measure of which neither direction is better, or without an interval, cannot tell.
    """
    change = line.change
    if (
        line.higher_is_better is None
        or change.delta is None
        or change.ci_low is None
        or change.ci_high is None
    ):
        return None
    worst = -change.ci_low if line.higher_is_better else change.ci_high
    if worst < margin:
        return True
    return False if _loss(line) > margin and change.is_clear else None


def all_of(outcomes: Sequence[bool | None]) -> bool | None:
    """False if one is, else None if one is, else True."""
    return False if False in outcomes else (None if None in outcomes else True)


def longer(results: Results, margins: Margins) -> Finding | None:
    """Are descriptions longer than before by more than the margin, in percent of their words?"""
    for line in _lines(results, "words", guarded_tasks(results)):
        before, change = line.values[results.before], line.change
        if not before or change.delta is None or change.ci_low is None or change.ci_high is None:
            continue
        growth, low, high = (100 * value / before for value in (change.delta, change.ci_low, change.ci_high))
        passed = True if high < margins.longer else (False if growth > margins.longer and low > 0 else None)
        rest = {
            True: f"growth beyond {margins.longer:g}% is ruled out",
            False: f"more than the {margins.longer:g}% allowed",
            None: f"growth beyond {margins.longer:g}% is not ruled out",
        }[passed]
        text = signed(
            f"Words {shown(line, before)} → {shown(line, line.values[results.after])}, {growth:+.0f}% "
            f"[{low:+.0f}%, {high:+.0f}%]: {rest}."
        )
        numbers = {
            "passed": passed,
            "leans": passed is None and growth > margins.longer,
            "margin_percent": margins.longer,
            "growth_percent": growth,
            "growth_low": low,
            "growth_high": high,
            **change_numbers(line, results),
        }
        brief = signed(f"words {growth:+.0f}%")
        return Finding("longer", "warn" if not passed else "good", "Longer", text, numbers, brief)
    return None


def judge_agrees(results: Results, margins: Margins) -> Finding | None:
    """Where a judge compared the answers blindly and in both orders: does it prefer the earlier ones?"""
    before, after = shown_name(results.before), shown_name(results.after)
    lines = [
        line
        for line in results.preferences
        if line.get("ci") and (line["before"], line["after"]) == (results.before, results.after)
    ]
    if not lines:
        return None
    even = 50 - margins.judge
    outcomes = [
        True if line["ci"][0] > even else (False if line["ci"][1] < 50 and line["win_rate"] < even else None)
        for line in lines
    ]
    passed = all_of(outcomes)
    parts = [
        f"{results.label_of(line['task'])} {line['win_rate']:.0f}% "
        f"[{line['ci'][0]:.0f}, {line['ci'][1]:.0f}] of {line['n']:,} pairs"
        + (f", {line['win_rate_equal_length']:.0f}% at equal length" if line["win_rate_equal_length"] else "")
        for line in lines
    ]
    rest = {
        True: f"{before}'s are not preferred",
        False: f"{before}'s answers are preferred",
        None: f"a preference for {before}'s is not ruled out",
    }[passed]
    text = f"Blind and in both orders, {after}'s answers win {'; '.join(parts)}: {rest}."
    if unsteady := [line for line in lines if (line.get("consistency") or 100) < 50]:
        text += f" In {len(unsteady)} of {len(lines)} the judge mostly changes its mind with the order."
    numbers = {
        "passed": passed,
        "before": before,
        "margin_points": margins.judge,
        "win_rates": {line["task"]: line["win_rate"] for line in lines},
    }
    brief = f"a judge's win rate {min(line['win_rate'] for line in lines):.0f}%"
    return Finding("judge", _TONES[passed], "A judge's preference", text, numbers, brief)


def guarded_tasks(results: Results) -> list[str]:
    """The tasks that decide whether less is invented; where none looks for that, the first that measures the
    form of descriptions."""
    deciding = list(dict.fromkeys(line.task for line in main_lines(results, "invention")))
    return deciding or [line.task for line in results.metrics if line.measures == "form"][:1]


def _guard(results: Results, guard: Guard, margins: Margins) -> Finding | None:
    tasks = guarded_tasks(results)
    held: dict[str, list[tuple[Metric, bool | None]]] = {task: [] for task in tasks}
    for name, margin in guard.measures.items():
        for line in _lines(results, name, tasks):
            held[line.task].append((line, outcome(line, getattr(margins, margin))))
    held = {task: found for task, found in held.items() if found}
    if not held:
        return None
    passed = all_of([_of_task(found) for found in held.values()])
    lines = [line for found in held.values() for line, _ in found]
    broken = [line for found in held.values() for line, result in found if result is False]
    deciding = [found[0][0] for found in held.values()]
    numbers: dict[str, Any] = {"passed": passed}
    if passed is None:
        numbers["leans"] = any(
            _loss(line) > getattr(margins, guard.measures[line.base_name]) for line in deciding
        )
    for line in lines:
        name = line.base_name if len(held) == 1 else f"{line.task}/{line.base_name}"
        margin = getattr(margins, guard.measures[line.base_name])
        numbers[name] = {**change_numbers(line, results), "margin": margin, "passed": outcome(line, margin)}
    told = broken or lines[:1]
    allowed = points(getattr(margins, guard.measures[told[0].base_name]))
    text = (
        told_changes(lines, results)
        + {
            True: f": a loss of more than {allowed} is ruled out.",
            False: f": more than the margin allows ({join_words([line.label.lower() for line in broken])}).",
            None: f": a loss of more than {allowed} is not ruled out.",
        }[passed]
    )
    elsewhere = _broken_elsewhere(results, guard, margins, tasks)
    if elsewhere:
        text += f" {'Also worse' if passed is False else 'But worse'} in {join_words(elsewhere)}."
    tone: Tone = "warn" if passed and elsewhere else _TONES[passed]
    return Finding(guard.key, tone, guard.title, text, numbers, brief_change(told[:1], results))


def _loss(line: Metric) -> float:
    """The measured difference in the worse direction."""
    return -(line.gain or 0.0)


def _of_task(found: Sequence[tuple[Metric, bool | None]]) -> bool | None:
    return False if any(result is False for _, result in found) else found[0][1]


def _broken_elsewhere(results: Results, guard: Guard, margins: Margins, decided: Sequence[str]) -> list[str]:
    """Labels of the other tasks in which one of the guard's measures is worse."""
    tasks = [task for task in results.tasks if task not in decided and task not in results.apart]
    return list(
        dict.fromkeys(
            line.task_label
            for name, margin in guard.measures.items()
            for line in _lines(results, name, tasks)
            if outcome(line, getattr(margins, margin)) is False
        )
    )


def _lines(results: Results, name: str, tasks: Sequence[str]) -> list[Metric]:
    """The measure in each of the tasks that have it and can be compared."""
    found = (whole_of(results.lines_of(task, name)) for task in tasks)
    return [line for line in found if line is not None and line.change.ci_low is not None]
