"""The verdict in plain words, each sentence resting on numbers that stand beside it.

Fewer invented objects count as better only when other explanations are out: the captions got shorter,
they leave out what is there, or questions are answered worse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from evals.report import findings as find
from evals.report.captions import Described
from evals.report.findings import Finding, Tone, main_lines
from evals.report.load import Results
from evals.report.metric import shown_name
from evals.report.wording import join_words

Status = Literal[
    "better", "shorter", "recall_lost", "answers_worse", "fooled_more", "no_effect", "worse", "no_captions",
    "single",
]  # fmt: skip


@dataclass(frozen=True)
class Margins:
    """How much may be lost, in percentage points, and still count as kept."""

    vqa: float
    recall: float


@dataclass(frozen=True)
class Verdict:
    """What the page says first.

    Attributes:
        gates: question -> True, False, or None when the scores cannot tell.
    """

    status: Status
    tone: Tone
    headline: str
    summary: str
    gates: Mapping[str, bool | None]
    findings: Sequence[Finding]

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
        find.length(results, described),
        find.recall_kept(results, margins.recall),
        find.answers_kept(results, margins.vqa),
        find.probing(results, margins.vqa),
        find.yes_ratio(results),
        *find.earlier_steps(results),
        find.health(results),
    ]
    found = {finding.key: finding for finding in findings if finding}
    gates = _gates(found)
    asked = {line.type for line in main_lines(results, "probing")}
    if asked == {"pope"} and gates["not_fooled_more"] is not False:
        del found["probing"]  # the sentence about POPE's share of yes says it
    status = _status(results, gates)
    headline, summary = _words(status, results, found)
    tone: Tone = {"better": "good", "worse": "bad"}.get(status, "warn")  # type: ignore[assignment]
    return Verdict(status, tone, headline, summary, gates, list(found.values()))


def _gates(found: Mapping[str, Finding]) -> dict[str, bool | None]:
    keys = {
        "fewer_inventions": "invention",
        "not_only_shorter": "length",
        "recall_kept": "recall",
        "vqa_not_inferior": "vqa",
        "not_fooled_more": "probing",
        "answers_healthy": "health",
    }
    return {gate: found[key].numbers.get("passed") if key in found else None for gate, key in keys.items()}


def _status(results: Results, gates: Mapping[str, bool | None]) -> Status:
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
    costs: Sequence[tuple[str, Status]] = (
        ("not_only_shorter", "shorter"),
        ("recall_kept", "recall_lost"),
        ("vqa_not_inferior", "answers_worse"),
        ("not_fooled_more", "fooled_more"),
    )
    for gate, cost in costs:
        if gates[gate] is False:
            return cost
    return "better"


def _words(status: Status, results: Results, found: Mapping[str, Finding]) -> tuple[str, str]:
    before, after = shown_name(results.before), shown_name(results.after)
    if not main_lines(results, "invention") and status != "no_captions":
        return _words_on_questions(status, before, after)
    headlines: dict[Status, tuple[str, str]] = {
        "better": (f"{after} invents fewer objects than {before}.", _better(found)),
        "shorter": (
            f"{after} says less; it is not shown to see better.",
            f"Fewer objects are invented, but {before}'s captions blindly cut to the same length do as well: "
            "shorter captions explain it.",
        ),
        "recall_lost": (
            f"{after} invents fewer objects, but names fewer that are there.",
            "Part of the drop may be bought by leaving true objects out.",
        ),
        "answers_worse": (
            f"{after} invents fewer objects, but is not shown to answer questions as well.",
            "The gain in captions does not rule out a loss in visual question answering beyond the margin.",
        ),
        "fooled_more": (
            f"{after} invents fewer objects by itself, but is fooled more often when asked.",
            "Descriptions got better and answers to questions about what is there got worse.",
        ),
        "no_effect": (
            f"No reliable difference between {before} and {after} in invented objects.",
            "The 95% intervals include zero: this test set cannot tell the two apart.",
        ),
        "worse": (
            f"{after} invents more objects than {before}.",
            "The rise is larger than chance on this test set.",
        ),
        "no_captions": (
            f"{before} and {after} were not compared on captions.",
            "Without CHAIR scores this report says nothing about invented objects.",
        ),
    }
    headline, summary = headlines[status]
    if status == "answers_worse" and any(line.effect == "worse" for line in main_lines(results, "ability")):
        headline = f"{after} invents fewer objects, but answers questions worse."
        summary = (
            "The gain in captions is paid for with a loss in visual question answering beyond the margin."
        )
    return headline, summary


def _words_on_questions(status: Status, before: str, after: str) -> tuple[str, str]:
    """Where nothing but questions was asked about what is there."""
    open_end = "No captions were compared: this says nothing about what it invents of its own accord."
    return {
        "better": (f"{after} is right more often than {before} about what is there.", open_end),
        "no_effect": (f"No reliable difference between {before} and {after} on what is there.", open_end),
        "worse": (f"{after} is wrong more often than {before} about what is there.", open_end),
        "answers_worse": (
            f"{after} is right more often about what is there, but not shown to answer other questions "
            "as well.",
            open_end,
        ),
    }[status]


def _better(found: Mapping[str, Finding]) -> str:
    """What is behind a `better`, and what it leaves open."""
    names = {"recall": "recall", "vqa": "question answering"}
    known = {key: name for key, name in names.items() if key in found}
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
        both = " and ".join(unsure)
        return (
            text
            + f"No loss in {both} beyond the margin was measured, but the interval does not rule one out."
        )
    return text + (
        f"A loss in {' and '.join(known.values())} beyond the margin is ruled out." if known else ""
    )


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
