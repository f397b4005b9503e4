"""What the verdict rests on: titled sentences, each with its tone and its numbers.

Only the first task of a type decides; the others are named where they say the contrary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from evals.comparison.metric_line import Change
from evals.report.captions import Described
from evals.report.load import Results, whole_of
from evals.report.metric import Metric, shown_name
from evals.report.wording import digits_of, interval, join_words, points, signed

Tone = Literal["good", "bad", "warn", "neutral"]
# A caption this much shorter makes length a possible cause of what changed.
_SHORTER = 0.95
# More than this share of answers failed, empty, cut off or not understood is worth a warning.
UNHEALTHY = 0.02
# Percentage points by which the share of yes answers may move away from a half without a word.
_LEANING = 5.0
# Beyond so many tasks a sentence sends its reader to the table.
_MAX_TASKS = 3


@dataclass(frozen=True)
class Finding:
    """A titled sentence, its tone, and the numbers it rests on (shares in percent).

    Attributes:
        brief: the change in a few words, for a summary that names several.
    """

    key: str
    tone: Tone
    title: str
    text: str
    numbers: Mapping[str, Any]
    brief: str = ""


def main_lines(results: Results, measures: str) -> list[Metric]:
    """Primary lines of that aim, those of the first task of each type; comparable ones only."""
    found: dict[str, str] = {}
    for line in results.primary(measures):
        found.setdefault(line.task if line.facts.is_own else line.kind, line.task)
    tasks = set(found.values())
    lines = [line for line in results.primary(measures) if line.task in tasks]
    return lines if results.is_single else [line for line in lines if line.change.delta is not None]


def one_a_task(results: Results, lines: Sequence[Metric]) -> list[Metric]:
    """The first metric of each task, over all of its parts or as their mean."""
    first: dict[str, Metric] = {}
    for line in lines:
        first.setdefault(line.task, whole_of(results.lines_of(line.task, line.base_name)) or line)
    return list(first.values())


def invention(results: Results) -> Finding | None:
    """Is less invented, and nowhere more?"""
    lines = main_lines(results, "invention")
    if not lines:
        return None
    effects = {line.effect for line in lines}
    passed = "better" in effects and "worse" not in effects
    tone: Tone = "good" if passed else ("bad" if "worse" in effects else "warn")
    text = told_changes(lines, results) + "."
    text += {
        "good": "",
        "warn": " Zero lies within the intervals: no reliable difference.",
        "bad": " More is invented than before." if "better" not in effects else " They point both ways.",
    }[tone]
    corrected = [line.change.p_holm for line in lines if line.change.p_holm is not None]
    if passed and corrected and min(corrected) > 0.05:
        text += " After correction for several metrics (Holm) the evidence is weak."
        tone = "warn"
    decided = {line.task for line in lines}
    elsewhere = [line for line in results.primary("invention") if line.task not in decided]
    if worse := list(dict.fromkeys(line.task_label for line in elsewhere if line.effect == "worse")):
        text += f" But more is invented in {join_words(worse)}."
        tone = "warn" if passed else tone
    numbers = {line.base_name: change_numbers(line, results) for line in lines}
    return Finding("invention", tone, "Invented objects", text, {"passed": passed, **numbers})


def length(results: Results, described: Described | None) -> Finding | None:
    """Could shorter captions explain the change?"""
    if described is None or not described.matched or not described.words.get(results.before):
        return None
    matched = described.matched
    before, after = described.words[results.before], described.words[results.after]
    ratio, fair = after / before, matched[0]
    line = results.find(described.task, described.facts.invented)
    label = "inventions" if line is None else line.label
    lower = any(line.effect == "better" for line in main_lines(results, "invention"))
    one, two = shown_name(results.before), shown_name(results.after)
    numbers = {"words_before": before, "words_after": after, "matched": [asdict(item) for item in matched]}

    def found(tone: Tone, text: str, passed: bool | None) -> Finding:
        brief = signed(f"words {100 * (ratio - 1):+.0f}%")
        return Finding("length", tone, "Length", text, {"passed": passed, **numbers}, brief)

    text = signed(f"Captions have {before:.1f} → {after:.1f} words ({100 * (ratio - 1):+.0f}%)")
    if ratio >= _SHORTER:
        return found("neutral", f"{text}: saying less does not explain the difference.", True)
    if not lower:
        return found("neutral", f"{text}.", None)
    chair_delta = interval(fair.chair_delta, fair.chair_low, fair.chair_high)
    true_delta = interval(fair.true_after - fair.true_before, fair.true_low, fair.true_high, digits=2)
    cut = (
        f"{text}. Cutting {one}'s captions blindly to the same mean length gives {label} "
        f"{fair.chair_before:.1f}% and {fair.true_before:.2f} true objects a caption; {two} has "
        f"{fair.chair_after:.1f}% ({chair_delta}) and {fair.true_after:.2f} ({true_delta})"
    )
    if fair.is_better:
        numbers["by_true_objects"] = fair.chair_high >= 0
        return found("good", f"{cut}: not only shorter.", True)
    return found("bad", f"{cut}: shorter, not better.", False)


def recall_kept(results: Results, margin: float) -> Finding | None:
    """Do captions still name what is there?"""
    kinds = dict.fromkeys(line.kind for line in main_lines(results, "invention"))
    tasks = [task for kind in kinds if (task := results.main_task(kind)) is not None]
    lines = [results.find(task, guard) for task in tasks if (guard := results.facts[task].guard)]
    return _kept("recall", "True objects", [line for line in lines if line], margin, results)


def answers_kept(results: Results, margin: float) -> Finding | None:
    """Are general questions answered as well as before?"""
    lines = one_a_task(results, main_lines(results, "ability"))
    return _kept("vqa", "Visual questions", lines, margin, results)


def probing(results: Results, margin: float) -> Finding | None:
    """Is the model fooled more when it is asked? The share of yes has a sentence of its own, `yes_ratio`."""
    lines = main_lines(results, "probing")
    if not lines:
        return None
    worse = [line for line in lines if _clearly_worse(line)]
    shares = [line for line in lines if line.is_share]
    ruled_out = all((line.change.ci_low or 0.0) > -margin for line in shares) and len(shares) == len(lines)
    passed = False if worse else (True if ruled_out else None)
    better = any(line.effect == "better" for line in lines)
    text = told_changes(one_a_task(results, lines), results) + "."
    if worse:
        text += f" More often wrong than before: {join_words([line.task_label for line in worse])}."
    tone: Tone = "bad" if worse else ("good" if better else "neutral")
    numbers = {f"{line.task}/{line.split}": change_numbers(line, results) for line in lines}
    brief = brief_change(worse, results)
    return Finding("probing", tone, "Asked about what is there", text, {"passed": passed, **numbers}, brief)


def yes_ratio(results: Results) -> Finding | None:
    """Does the model lean to yes or to no?"""
    task = next(iter(results.main_tasks("yes_ratio")), "")
    names = ("accuracy", results.facts[task].yes_ratio) if task else ()
    accuracy, ratio = [results.find(task, name) for name in names] or (None, None)
    if accuracy is None or ratio is None or accuracy.change.delta is None:
        return None
    right, yes = (
        [line.values[name] or 0.0 for name in (results.before, results.after)] for line in (accuracy, ratio)
    )
    truth = results.true_share(accuracy.task)
    drift = 0.0 if truth is None else abs(yes[1] - truth) - abs(yes[0] - truth)
    text = f"Accuracy {right[0]:.1f}% → {right[1]:.1f}% ({_interval(accuracy)}); "
    text += f"yes to {yes[0]:.0f}% → {yes[1]:.0f}%"
    text += "." if truth is None else f", where {'half' if round(truth) == 50 else f'{truth:.0f}%'} are true."
    tone: Tone = {"better": "good", "worse": "bad"}.get(accuracy.effect, "neutral")  # type: ignore[assignment]
    if drift > _LEANING:
        tone, text = "warn", text + " The model leans more to one answer."
    numbers = {"accuracy": change_numbers(accuracy, results), "yes_ratio": change_numbers(ratio, results)}
    return Finding("yes_ratio", tone, f"Is it there? ({accuracy.task_label})", text, numbers)


def earlier_steps(results: Results) -> list[Finding]:
    """The way as a whole and, of three checkpoints, the first step."""
    lines = [*main_lines(results, "invention")[:1], *main_lines(results, "ability")[:1]]
    lines = lines or main_lines(results, "probing")[:1]
    names = results.checkpoints
    steps = [(names[0], names[1])] * (len(names) == 3) + [(names[0], names[-1])] * (len(names) > 2)
    found = []
    for one, two in steps:
        parts = [
            f"{_name(line, results)} {shown(line, line.values[one])} → {shown(line, line.values[two])} "
            f"({interval(change.delta, change.ci_low, change.ci_high, line.digits)})"
            for line in lines
            if (change := line.changes.get((one, two))) is not None
        ]
        if parts:
            title = f"{shown_name(one)} to {shown_name(two)}"
            numbers = {line.task: _numbers(line.changes.get((one, two), Change())) for line in lines}
            found.append(Finding(f"{one}_to_{two}", "neutral", title, "; ".join(parts) + ".", numbers))
    return found


def _numbers(change: Change) -> dict[str, Any]:
    return change.model_dump(include={"delta", "ci_low", "ci_high", "p", "p_holm", "mde", "paired"})


def health(results: Results) -> Finding | None:
    """Were the answers received whole and understood?"""
    bad: list[str] = []
    for row in results.health:
        total = row.get("n") or 0
        for kind in ("failed", "empty", "truncated", "unparsed"):
            count = row.get(kind) or 0
            if total and count / total > UNHEALTHY:
                task = results.label_of(row["task"])
                bad.append(f"{shown_name(row['checkpoint'])}, {task}: {count:,} of {total:,} {kind}")
    if results.bad_rows:
        bad.append(f"{len(results.bad_rows)} score rows could not be read")
    if not results.health and not bad:
        return None
    if not bad:
        text = "Nearly all answers were received whole and understood."
        return Finding("health", "neutral", "Health", text, {"passed": True})
    more = f"; {len(bad) - 3} more below" if len(bad) > 4 else ""
    text = "Answers to look at: " + "; ".join(bad[: 3 if more else 4]) + more + "."
    return Finding("health", "warn", "Health", text, {"passed": False, "cases": bad})


def shown(line: Metric, value: float | None) -> str:
    """A value with its unit."""
    return digits_of(value, line.digits, "–") + ("%" if line.is_share and value is not None else "")


def _kept(key: str, title: str, lines: Sequence[Metric], margin: float, results: Results) -> Finding | None:
    """Non-inferiority: kept when the whole interval is above -margin, lost when the change is below it."""
    lines = [line for line in lines if line.change.delta is not None and line.change.ci_low is not None]
    if not lines:
        return None
    outcome = {line.task_label: _is_kept(line, margin) for line in lines}
    passed = False if False in outcome.values() else (None if None in outcome.values() else True)
    tones: dict[bool | None, Tone] = {True: "good", False: "bad", None: "warn"}
    numbers = {"passed": passed, "margin_points": margin, **change_numbers(lines[0], results)}
    if len(lines) > 1:
        numbers["tasks"] = {line.task: change_numbers(line, results) for line in lines}
    numbers["any_worse"] = any(line.effect == "worse" for line in lines)
    text = f"{told_changes(lines, results)}; {_outcome_words(outcome, points(margin))}."
    brief = brief_change([line for line in lines if _is_kept(line, margin) is False] or lines, results)
    return Finding(key, tones[passed], title, text, numbers, brief)


def _outcome_words(outcome: Mapping[str, bool | None], margin: str) -> str:
    """What is ruled out, for which tasks where they differ."""
    if set(outcome.values()) == {False}:
        return f"lower by more than the {margin} allowed"
    words = {True: "ruled out", None: "not ruled out", False: "what was measured"}
    parts = []
    for result, word in words.items():
        names = [name for name, found in outcome.items() if found is result]
        if names:
            parts.append(word + (f" for {join_words(names)}" if len(set(outcome.values())) > 1 else ""))
    return f"a loss of more than {margin} is {', '.join(parts)}"


def _is_kept(line: Metric, margin: float) -> bool | None:
    """An interval alone would let an imprecise test set pass as a loss: that one is not known."""
    if (line.change.ci_low or 0.0) > -margin:
        return True
    return False if (line.change.delta or 0.0) < -margin else None


def _clearly_worse(line: Metric) -> bool:
    """Worse, also after correction for several metrics."""
    return line.effect == "worse" and (line.change.p_holm is None or line.change.p_holm <= 0.05)


def brief_change(lines: Sequence[Metric], results: Results) -> str:
    """`recall 80.1% → 73.0%`, several with commas."""
    sides = (results.before, results.after)
    parts = []
    for line in lines:
        name = _name(line, results)
        name = name.lower() if name.capitalize() == name else name  # but CHAIRs and F1
        parts.append(f"{name} {' → '.join(shown(line, line.values[side]) for side in sides)}")
    return ", ".join(parts)


def told_changes(lines: Sequence[Metric], results: Results) -> str:
    """Old and new values with their differences; several metrics of a task in one go."""
    tasks = list(dict.fromkeys(line.task_label for line in lines))
    parts = []
    for task in tasks[:_MAX_TASKS]:
        own = [_change(line, results) for line in lines if line.task_label == task]
        named = not own[0].startswith(task) and (len(tasks) > 1 or lines[0].facts.named == "always")
        parts.append(f"{task} {', '.join(own)}" if named else ", ".join(own))
    if len(tasks) > _MAX_TASKS:
        parts.append(f"{len(tasks) - _MAX_TASKS} more in the table")
    return "; ".join(parts)


def _name(line: Metric, results: Results) -> str:
    return line.label if line.facts.named == "never" else f"{line.task_label} {line.label}"


def _change(line: Metric, results: Results) -> str:
    before, after = line.values[results.before], line.values[results.after]
    text = f"{line.label} {shown(line, before)} → {shown(line, after)} ({_interval(line)}"
    if before and line.change.delta is not None and line.higher_is_better is False:
        text += signed(f"; {100 * line.change.delta / before:+.0f}% relative")
    return text + ")"


def _interval(line: Metric) -> str:
    return interval(line.change.delta, line.change.ci_low, line.change.ci_high, line.digits)


def change_numbers(line: Metric, results: Results) -> dict[str, Any]:
    """Old and new value, the difference, its interval and p."""
    keys = ("delta", "ci_low", "ci_high", "p", "p_holm")
    sides = {"before": line.values[results.before], "after": line.values[results.after]}
    return sides | {key: getattr(line.change, key) for key in keys}
