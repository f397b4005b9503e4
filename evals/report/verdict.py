"""The verdict in plain words, each sentence resting on numbers that stand beside it.

Fewer invented objects count as better only when other explanations are out and nothing else is paid: the
captions got shorter or longer, leave out what is there, repeat themselves, count worse, or questions are
answered worse. What published numbers do not see is guarded by measures of its own (`evals.report.guards`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evals.report import findings as find
from evals.report.captions import Described
from evals.report.findings import Finding, Tone, main_lines
from evals.report.guards import guard_measures, judge_agrees, longer
from evals.report.headline import COSTS, Cost, Status, broken_costs, leaning, say_costs, without_implied
from evals.report.load import Results
from evals.report.margins import Margins
from evals.report.metric import shown_name
from evals.report.wording import join_words
from evals.report.worse_captions import captions_worse, counted_once


@dataclass(frozen=True)
class Verdict:
    """What the page says first.

    Attributes:
        gates: question -> True, False, or None when the scores cannot tell.
        broken: the gates of the guards that broke, the heaviest first.
        open: the gates that were measured and cannot tell.
    """

    status: Status
    tone: Tone
    headline: str
    summary: str
    gates: Mapping[str, bool | None]
    findings: Sequence[Finding]
    broken: Sequence[str] = ()
    open: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """The verdict as it stands in `report.json`."""
        return asdict(self)


def judge_results(results: Results, described: Described | None, margins: Margins) -> Verdict:
    """The verdict on the last checkpoint against the one before; of a single one, what it measures.

    Args:
        described: the descriptions whose length is looked at; None when there are none.
        margins: see `Margins`.
    """
    if results.is_single:
        return _single(results)
    findings = [
        find.invention(results),
        counted_once(results, described),
        find.length(results, described),
        longer(results, margins),
        find.recall_kept(results, margins.recall),
        *guard_measures(results, margins),
        captions_worse(results, described, margins),
        find.answers_kept(results, margins.vqa),
        find.probing(results, margins.vqa),
        judge_agrees(results, margins),
        find.yes_ratio(results),
        *find.earlier_steps(results),
        find.health(results),
    ]
    found = {finding.key: finding for finding in findings if finding}
    gates = _gates(found)
    asked = main_lines(results, "probing")
    if asked and all(line.facts.yes_ratio for line in asked) and gates["not_fooled_more"] is not False:
        del found["probing"]  # the sentence about the share of yes says it
    broken = broken_costs(gates)
    status = _status(results, gates, broken, leaning(found, gates))
    headline, summary = _words(status, results, found, broken, leaning(found, gates))
    shown = [finding for finding in found.values() if not _says_nothing_new(finding, found)]
    shown.sort(key=lambda finding: _RANKS.get(finding.key, _TONE_RANKS[finding.tone]))
    undecided = [cost.gate for cost in COSTS if cost.finding in found and gates[cost.gate] is None]
    names = [cost.gate for cost in broken]
    return Verdict(status, _tone(status, gates, broken), headline, summary, gates, shown, names, undecided)


def _gates(found: Mapping[str, Finding]) -> dict[str, bool | None]:
    keys = {
        "fewer_inventions": "invention",
        **{cost.gate: cost.finding for cost in COSTS},
        "answers_healthy": "health",
    }
    return {gate: found[key].numbers.get("passed") if key in found else None for gate, key in keys.items()}


def _says_nothing_new(finding: Finding, found: Mapping[str, Finding]) -> bool:
    """The sentence on length says, too, that captions did not grow."""
    return finding.key == "longer" and "length" in found and finding.numbers["passed"] is True


def _status(
    results: Results, gates: Mapping[str, bool | None], broken: Sequence[Cost], open_ones: Sequence[Cost]
) -> Status:
    lines, asked = main_lines(results, "invention"), main_lines(results, "probing")
    if not lines and not asked:
        return "no_captions"
    if not lines:
        effects = {line.effect for line in asked}
        if gates["not_fooled_more"] is False:
            return "worse"
        if "better" not in effects:
            return "no_effect"
    elif not gates["fewer_inventions"]:
        return "worse" if any(line.effect == "worse" for line in lines) else "no_effect"
    if broken:
        return broken[0].status
    return "not_shown" if open_ones and lines else "better"


def _tone(status: Status, gates: Mapping[str, bool | None], broken: Sequence[Cost]) -> Tone:
    """Green only where no guard broke; red where more is invented, or what is said is less true."""
    if status == "worse" or any(gates[gate] is False for gate in _TRUTH):
        return "bad"
    return "good" if status == "better" and not broken else "warn"


_RANKS: Mapping[str, int] = {"invention": 0, "counted_once": 0}
_TONE_RANKS: Mapping[Tone, int] = {"bad": 1, "warn": 2, "good": 3, "neutral": 4}
"""What was asked for stands first; then what is wrong."""
_TRUTH = ("fewer_by_object", "counting_kept")


def _words(
    status: Status,
    results: Results,
    found: Mapping[str, Finding],
    broken: Sequence[Cost],
    open_ones: Sequence[Cost],
) -> tuple[str, str]:
    before, after = shown_name(results.before), shown_name(results.after)
    if status == "no_captions" and broken:
        return (
            f"What {after} invents was not measured, but {say_costs(broken, found, after, 'none')}.",
            f"Worse than before: {_briefs(broken, found)}.",
        )
    if status == "no_captions":
        return (
            f"{before} and {after} were not compared on captions.",
            "Without captions' scores this report says nothing about invented objects.",
        )
    if not main_lines(results, "invention"):
        return _words_on_questions(status, before, after, found, broken)
    trick = f" {found['counted_once'].brief}." if "counted_once" in found else ""
    if status in ("no_effect", "worse"):
        return _words_without_gain(status, before, after, found, broken, trick)
    if status == "better":
        return f"{after} invents fewer objects than {before}.", _better(found) + trick
    if status == "not_shown":
        names = join_words([cost.open_words for cost in open_ones])
        holds = "holds" if len(open_ones) == 1 else "hold"
        briefs = "; ".join(found[cost.finding].brief for cost in open_ones)
        return (
            f"{after} invents fewer objects than {before}; whether {names} {holds} is open.",
            f"Measured losses beyond the margin that chance may explain: {briefs}.{trick}",
        )
    if status == "shorter":
        rest = broken[1:]
        more = f", and {say_costs(rest, found, after, 'model')}" if rest else ""
        return (
            f"{after} says less; it is not shown to see better{more}.",
            f"Fewer objects are invented, but {before}'s captions blindly cut to the same length do as well: "
            f"shorter captions explain it.{_also(rest, found)}{trick}",
        )
    return (
        f"{after} invents fewer objects, but {say_costs(broken, found, after, 'model')}.",
        _paid(broken, found) + trick,
    )


def _words_without_gain(
    status: Status,
    before: str,
    after: str,
    found: Mapping[str, Finding],
    broken: Sequence[Cost],
    trick: str,
) -> tuple[str, str]:
    if status == "worse":
        more = f", and {say_costs(broken, found, after, 'model')}" if broken else ""
        return (
            f"{after} invents more objects than {before}{more}.",
            f"The rise is larger than chance on this test set.{_also(broken, found)}{trick}",
        )
    more = f", but {say_costs(broken, found, after, 'none')}" if broken else ""
    return (
        f"No reliable difference between {before} and {after} in invented objects{more}.",
        "The 95% intervals include zero: this test set cannot tell the two apart."
        f"{_also(broken, found)}{trick}",
    )


def _paid(broken: Sequence[Cost], found: Mapping[str, Finding]) -> str:
    """What the gain stands against, for a headline that names it."""
    alone: dict[str, str] = {
        "recall_kept": "Part of the drop may be bought by leaving true objects out.",
        "not_fooled_more": "Descriptions got better and answers to questions about what is there got worse.",
        "vqa_not_inferior": (
            "The gain in captions is paid for with a loss in visual question answering beyond the margin."
            if "vqa" in found and found["vqa"].numbers.get("any_worse")
            else "The gain in captions does not rule out a loss in visual question answering beyond the "
            "margin."
        ),
    }
    if len(broken) == 1 and broken[0].gate in alone:
        return alone[broken[0].gate]
    return f"The drop stands against losses beyond chance and margin: {_briefs(broken, found)}."


def _also(broken: Sequence[Cost], found: Mapping[str, Finding]) -> str:
    return f" Worse beside it: {_briefs(broken, found)}." if broken else ""


def _briefs(broken: Sequence[Cost], found: Mapping[str, Finding]) -> str:
    return ", ".join(found[cost.finding].brief for cost in without_implied(broken))


def _words_on_questions(
    status: Status, before: str, after: str, found: Mapping[str, Finding], broken: Sequence[Cost]
) -> tuple[str, str]:
    """Where nothing but questions was asked about what is there."""
    open_end = "No captions were compared: this says nothing about what it invents of its own accord."
    headlines = {
        "better": (f"{after} is right more often than {before} about what is there.", open_end),
        "no_effect": (f"No reliable difference between {before} and {after} on what is there.", open_end),
        "worse": (f"{after} is wrong more often than {before} about what is there.", open_end),
        "answers_worse": (
            f"{after} is right more often about what is there, but not shown to answer other questions "
            "as well.",
            open_end,
        ),
    }
    if status in headlines:
        return headlines[status]
    costs = say_costs(broken, found, after, "model")
    return f"{after} is right more often than {before} about what is there, but {costs}.", open_end


def _better(found: Mapping[str, Finding]) -> str:
    """What is behind a `better`, and what it leaves open."""
    known = {
        cost.finding: cost.open_words for cost in COSTS if cost.finding in found and cost.finding in _LOSSES
    }
    unsure = [name for key, name in known.items() if found[key].numbers.get("passed") is None]
    text = "The drop is larger than chance"
    if "length" not in found:
        text += "; whether it holds at equal length could not be checked. "
    elif found["length"].numbers.get("by_true_objects"):
        text += (
            ". At equal length the rate is not shown to be lower, but more objects that are there are named. "
        )
    else:
        text += ", and shorter captions do not explain it. "
    if unsure:
        both = join_words(unsure)
        return (
            text
            + f"No loss in {both} beyond the margin was measured, but the interval does not rule one out."
        )
    return text + (
        f"A loss in {join_words(list(known.values()))} beyond the margin is ruled out." if known else ""
    )


_LOSSES = ("recall", "instance_recall", "repetition", "counting", "grammar", "vqa")
"""Findings on something that may be lost, for the summary of a gain."""


def _single(results: Results) -> Verdict:
    """One checkpoint: how often it invents, and nothing about better or worse."""
    name = shown_name(results.after)
    lines = [line for aim in ("invention", "probing", "ability") for line in main_lines(results, aim)]
    parts = []
    for line in find.one_a_task(results, lines):
        low, high = line.ci.get(results.after, (None, None))
        ends = "" if low is None else f" [{find.shown(line, low)}, {find.shown(line, high)}]"
        parts.append(f"{line.task_label} {line.label} {find.shown(line, line.values[results.after])}{ends}")
    healthy = find.health(results)
    text = join_words(parts[:4]) if len(parts) <= 4 else f"{', '.join(parts[:4])}; more in the table"
    return Verdict(
        status="single",
        tone="neutral",
        headline=f"What {name} scores.",
        summary=f"{text}. With one checkpoint nothing is better or worse: give a second one to compare.",
        gates={"answers_healthy": healthy.numbers["passed"] if healthy else None},
        findings=[healthy] if healthy else [],
    )
