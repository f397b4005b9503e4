"""The verdict in plain words, each sentence resting on numbers that stand beside it.

Fewer invented objects count as better only when three other explanations are out: the captions got
shorter, they leave out what is there, or questions are answered worse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from evals.report.captions import Matched
from evals.report.load import Metric, Results, shown_name

Tone = Literal["good", "bad", "warn", "neutral"]
Status = Literal["better", "shorter", "recall_lost", "answers_worse", "no_effect", "worse", "no_captions"]
# A caption this much shorter makes length a possible cause of what changed.
_SHORTER = 0.95
_MINUS = re.compile(r"-(?=\d)")
# More than this share of answers failed, empty, cut off or not understood is worth a warning.
_UNHEALTHY = 0.02
# Percentage points by which the share of yes answers may move away from a half without a word.
_LEANING = 5.0


@dataclass(frozen=True)
class Margins:
    """How much may be lost, in percentage points, and still count as kept."""

    vqa: float
    recall: float


@dataclass(frozen=True)
class Finding:
    """A titled sentence, its tone, and the numbers it rests on (shares in percent)."""

    key: str
    tone: Tone
    title: str
    text: str
    numbers: Mapping[str, Any]


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


def judge_results(
    results: Results, matched: Sequence[Matched], words: Mapping[str, float], margins: Margins
) -> Verdict:
    """The verdict on the last checkpoint against the one before.

    Args:
        matched: CHAIRi at equal length, words first; empty when there are no captions.
        words: checkpoint -> words per caption.
        margins: see `Margins`.
    """
    findings = [
        _invention(results),
        _length(results, matched, words),
        _kept("recall", results.find("chair", "recall"), margins.recall, results),
        _kept("vqa", results.find("vqa", "accuracy"), margins.vqa, results),
        _yes_ratio(results),
        _first_step(results),
        _health(results),
    ]
    found = {finding.key: finding for finding in findings if finding}
    gates = _gates(results, found)
    status = _status(results, gates)
    headline, summary = _words(status, results, found)
    tone: Tone = {"better": "good", "worse": "bad"}.get(status, "warn")  # type: ignore[assignment]
    return Verdict(status, tone, headline, summary, gates, list(found.values()))


def _gates(results: Results, found: Mapping[str, Finding]) -> dict[str, bool | None]:
    def passed(key: str) -> bool | None:
        return found[key].numbers.get("passed") if key in found else None

    return {
        "fewer_inventions": passed("invention"),
        "not_only_shorter": passed("length"),
        "recall_kept": passed("recall"),
        "vqa_not_inferior": passed("vqa"),
        "answers_healthy": passed("health"),
    }


def _status(results: Results, gates: Mapping[str, bool | None]) -> Status:
    lines = _invention_lines(results)
    if not lines:
        return "no_captions"
    if not gates["fewer_inventions"]:
        return "worse" if any(line.effect == "worse" for line in lines) else "no_effect"
    if gates["not_only_shorter"] is False:
        return "shorter"
    if gates["recall_kept"] is False:
        return "recall_lost"
    return "answers_worse" if gates["vqa_not_inferior"] is False else "better"


def _words(status: Status, results: Results, found: Mapping[str, Finding]) -> tuple[str, str]:
    before, after = shown_name(results.before), shown_name(results.after)
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
    answers = results.find("vqa", "accuracy")
    if status == "answers_worse" and answers and answers.effect == "worse":
        headline = f"{after} invents fewer objects, but answers questions worse."
        summary = (
            "The gain in captions is paid for with a loss in visual question answering beyond the margin."
        )
    return headline, summary


def _better(found: Mapping[str, Finding]) -> str:
    """What is behind a `better`, and what it leaves open."""
    names = {"recall": "recall", "vqa": "question answering"}
    known = {key: name for key, name in names.items() if key in found}
    unsure = [name for key, name in known.items() if found[key].numbers.get("passed") is None]
    text = "The drop is larger than chance"
    text += (
        ", and shorter captions do not explain it. "
        if "length" in found
        else "; whether it holds at equal length could not be checked. "
    )
    if unsure:
        both = " and ".join(unsure)
        return (
            text
            + f"No loss in {both} beyond the margin was measured, but the interval does not rule one out."
        )
    return text + (
        f"A loss in {' and '.join(known.values())} beyond the margin is ruled out." if known else ""
    )


def _invention_lines(results: Results) -> list[Metric]:
    found = (results.find("chair", name) for name in ("chair_i", "chair_s"))
    return [line for line in found if line is not None]


def _invention(results: Results) -> Finding | None:
    lines = _invention_lines(results)
    if not lines:
        return None
    effects = {line.effect for line in lines}
    passed = "better" in effects and "worse" not in effects
    tone: Tone = "good" if passed else ("bad" if "worse" in effects else "warn")
    parts = [_change(line, results) for line in lines]
    ending = {
        "good": "",
        "warn": " Zero lies within the intervals: no reliable difference.",
        "bad": " More is invented than before.",
    }[tone]
    corrected = [line.p_holm for line in lines if line.p_holm is not None]
    if passed and corrected and min(corrected) > 0.05:
        ending = " After correction for several metrics (Holm) the evidence is weak."
        tone = "warn"
    numbers = {line.base_name: _numbers(line, results) for line in lines}
    return Finding(
        "invention", tone, "Invented objects", "; ".join(parts) + "." + ending, {"passed": passed, **numbers}
    )


def _length(results: Results, matched: Sequence[Matched], words: Mapping[str, float]) -> Finding | None:
    if not matched or not words.get(results.before):
        return None
    before, after, ratio = (
        words[results.before],
        words[results.after],
        words[results.after] / words[results.before],
    )
    fair = matched[0]
    lower = any(line.effect == "better" for line in _invention_lines(results))
    one, two = shown_name(results.before), shown_name(results.after)
    numbers = {"words_before": before, "words_after": after, "matched": [asdict(item) for item in matched]}
    length = signed(f"Captions have {before:.1f} → {after:.1f} words ({100 * (ratio - 1):+.0f}%)")
    if ratio >= _SHORTER:
        return Finding(
            "length",
            "neutral",
            "Length",
            f"{length}: saying less does not explain the difference.",
            {"passed": True, **numbers},
        )
    if not lower:
        return Finding("length", "neutral", "Length", f"{length}.", {"passed": None, **numbers})
    chair_delta = interval(fair.chair_delta, fair.chair_low, fair.chair_high)
    true_delta = interval(fair.true_after - fair.true_before, fair.true_low, fair.true_high, digits=2)
    cut = (
        f"{length}. Cutting {one}'s captions blindly to the same mean length gives CHAIRi "
        f"{fair.chair_before:.1f}% and {fair.true_before:.2f} true objects a caption; {two} has "
        f"{fair.chair_after:.1f}% ({chair_delta}) and {fair.true_after:.2f} ({true_delta})"
    )
    if fair.is_better:
        return Finding("length", "good", "Length", f"{cut}: not only shorter.", {"passed": True, **numbers})
    return Finding("length", "bad", "Length", f"{cut}: shorter, not better.", {"passed": False, **numbers})


def _kept(key: str, line: Metric | None, margin: float, results: Results) -> Finding | None:
    """Non-inferiority: kept when the whole interval is above -margin, lost when the change is below it."""
    if line is None or line.delta is None or line.ci_low is None:
        return None
    title = {"recall": "True objects", "vqa": "Visual questions"}[key]
    passed = True if line.ci_low > -margin else (False if line.delta < -margin else None)
    # A gate on the interval alone would let an imprecise test set pass as a loss.
    outcomes: dict[bool | None, tuple[Tone, str]] = {
        True: ("good", f"a loss of more than {_points(margin)} is ruled out"),
        False: ("bad", f"lower by more than the {_points(margin)} allowed"),
        None: ("warn", f"a loss of more than {_points(margin)} is not ruled out"),
    }
    tone, ending = outcomes[passed]
    numbers = {"passed": passed, "margin_points": margin, **_numbers(line, results)}
    return Finding(
        key, tone, title, f"{line.label} {_change(line, results, named=False)}; {ending}.", numbers
    )


def _yes_ratio(results: Results) -> Finding | None:
    accuracy, ratio = (results.find("pope", name) for name in ("accuracy", "yes_ratio"))
    if accuracy is None or ratio is None:
        return None
    right, yes = (
        [line.values[name] or 0.0 for name in (results.before, results.after)] for line in (accuracy, ratio)
    )
    drift = abs(yes[1] - 50) - abs(yes[0] - 50)
    change = interval(accuracy.delta, accuracy.ci_low, accuracy.ci_high)
    text = f"Accuracy {right[0]:.1f} → {right[1]:.1f}% ({change}); "
    text += f"yes to {yes[0]:.0f} → {yes[1]:.0f}%, where half are true."
    tone: Tone = {"better": "good", "worse": "bad"}.get(accuracy.effect, "neutral")  # type: ignore[assignment]
    if drift > _LEANING:
        tone, text = "warn", text + " The model leans more to one answer."
    return Finding(
        "yes_ratio",
        tone,
        f"Is it there? ({accuracy.task_label})",
        text,
        {"accuracy": _numbers(accuracy, results), "yes_ratio": _numbers(ratio, results)},
    )


def _first_step(results: Results) -> Finding | None:
    line = results.find("vqa", "accuracy")
    if line is None or len(results.checkpoints) < 3 or line.first_step.get("delta") is None:
        return None
    one, two = results.checkpoints[-3], results.checkpoints[-2]
    step = line.first_step
    change = interval(step["delta"], step.get("ci_low"), step.get("ci_high"))
    text = f"VQA accuracy {_pct(line.values[one])} → {_pct(line.values[two])} ({change})."
    return Finding("first_step", "neutral", f"{shown_name(one)} to {shown_name(two)}", text, dict(step))


def _health(results: Results) -> Finding | None:
    bad: list[str] = []
    for row in results.health:
        total = row.get("n") or 0
        for kind in ("failed", "empty", "truncated", "unparsed"):
            count = row.get(kind) or 0
            if total and count / total > _UNHEALTHY:
                bad.append(f"{shown_name(row['checkpoint'])} {row['task']}: {count} of {total} {kind}")
    if results.bad_rows:
        bad.append(f"{len(results.bad_rows)} score rows could not be read")
    if not results.health and not bad:
        return None
    if not bad:
        return Finding(
            "health",
            "neutral",
            "Health",
            "Nearly all answers were received whole and understood.",
            {"passed": True},
        )
    return Finding(
        "health",
        "warn",
        "Health",
        "Answers to look at: " + "; ".join(bad[:6]) + ".",
        {"passed": False, "cases": bad},
    )


def _change(line: Metric, results: Results, named: bool = True) -> str:
    before, after = line.values[results.before], line.values[results.after]
    text = f"{line.label} " if named else ""
    text += f"{_pct(before)} → {_pct(after)} ({interval(line.delta, line.ci_low, line.ci_high)}"
    if before and line.delta is not None and not line.higher_is_better:
        text += signed(f"; {100 * line.delta / before:+.0f}% relative")
    return text + ")"


def _numbers(line: Metric, results: Results) -> dict[str, Any]:
    return {
        "before": line.values[results.before],
        "after": line.values[results.after],
        **{key: getattr(line, key) for key in ("delta", "ci_low", "ci_high", "p", "p_holm")},
    }


def interval(delta: float | None, low: float | None, high: float | None, digits: int = 1) -> str:
    """`-3.2 [-5.0, -1.4]`, with a minus sign."""
    if delta is None:
        return "–"
    text = f"{delta:+.{digits}f}"
    if low is not None and high is not None:
        text += f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    return signed(text)


def signed(text: str) -> str:
    """With true minus signs before digits."""
    return _MINUS.sub("−", text)


def _points(margin: float) -> str:
    return f"{margin:g} point" + ("" if margin == 1 else "s")


def _pct(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}%"
