"""Kind pairwise: two answers to one prompt side by side, asked in both orders; disagreement is a tie.

Judges favour a place (Zheng et al. 2023, arXiv 2306.05685, section 3.3), so a winner counts only if it wins
in both. Writes `comparisons.jsonl`; an answer's score is the share of its comparisons that it won minus the
share that it lost, -1 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from align.digest import digest_json
from align.errors import AlignError
from align.judging.pairwise import winner_of
from align.judging.replies import LETTERS, Read, read_choice
from align.judging.wording import fill, spoken, wording_digest
from align.rows.schema import Candidate, Comparison, Verdict, write_rows
from align.run.folder import RunFolder
from align.serving.client import Failure, Reply
from data_tools.judge.asking import (
    Judged,
    Question,
    ask_all,
    by_prompt,
    check_read,
    left_out,
    raw,
    read_candidates,
    why_unread,
)
from data_tools.judge.calibration import (
    PreferenceLabel,
    Winner,
    calibrate_choices,
    invented,
    order_bias,
    read_labels,
    true_preferences,
)
from data_tools.judge.recipe import Recipe
from data_tools.material.truth import load_truth

VERSION = "pairwise-2"
_LETTER_OF = {side: letter for letter, side in LETTERS.items()}


def judge_pairwise(recipe: Recipe, folder: RunFolder) -> Judged:
    """Compare answers to each prompt, and score each answer by what it won and lost.

    Raises:
        AlignError: no prompt has two answers.
    """
    assert recipe.candidates is not None
    candidates = read_candidates(recipe.candidates)
    couples = _couples(recipe, candidates)
    questions = {}
    for first, second in couples:
        for a, b in ((first, second), (second, first)):
            asked = {"question": _question(a), "first": a.text, "second": b.text}
            questions[f"{a.id}\n{b.id}"] = Question(fill(recipe.pairwise.prompt, asked), a.images)
    judge, replies = ask_all(recipe, folder, questions, recipe.pairwise.max_tokens, pattern="[ABC]")
    reasons = [why_unread(reply, _read(reply)) for reply in replies.values()]
    check_read(recipe, judge, replies.values(), reasons, "pairwise.max_tokens")
    comparisons = [
        _comparison(recipe, judge, (a, b), (replies[f"{a.id}\n{b.id}"], replies[f"{b.id}\n{a.id}"]))
        for a, b in couples
    ]
    write_rows(folder.work / "comparisons.jsonl", comparisons)
    winners: dict[tuple[str, str], Winner] = {
        (row.first_id, row.second_id): row.winner for row in comparisons if row.winner is not None
    }
    outcomes, failures = outcomes_of(winners), _failures(comparisons)
    verdicts = [
        _verdict(recipe, judge, row, outcomes.get(row.id, []), failures.get(row.id, [])) for row in candidates
    ]
    choices = [
        (letters[0], letters[1])
        for row in comparisons
        if row.winner is not None and (letters := row.meta["letters"])
    ]
    bias = order_bias(choices)
    agreement = measure_choices(recipe, candidates, winners)
    ties = sum(row.winner == "tie" for row in comparisons)
    metrics = {
        "verdicts": len(verdicts),
        "unscored": sum(verdict.score is None for verdict in verdicts),
        "comparisons": len(comparisons),
        "unscored_comparisons": sum(row.winner is None for row in comparisons),
        "ties": ties,
    } | left_out(replies.values())
    lines = [
        f"  {len(comparisons)} comparisons in both orders: {ties} ties, "
        f"{metrics['unscored_comparisons']} unscored",
        _bias_line(bias),
    ]
    extra = {"judge": judge, "kind": recipe.kind, "order_bias": bias}
    return Judged(verdicts, agreement | extra, metrics, lines)


def outcomes_of(winners: Mapping[tuple[str, str], Winner]) -> dict[str, list[int]]:
    """Answer -> 1, 0 or -1 for each couple that it won, tied or lost, from (first, second) -> winner."""
    found: dict[str, list[int]] = {}
    for (first, second), winner in winners.items():
        value = {"first": 1, "tie": 0, "second": -1}[winner]
        found.setdefault(first, []).append(value)
        found.setdefault(second, []).append(-value)
    return found


def mean_outcome(outcomes: Sequence[int]) -> tuple[float | None, str]:
    """An answer's score, -1 to 1, and the reason where it has none."""
    if not outcomes:
        return None, "in no comparison"
    return round(sum(outcomes) / len(outcomes), 4), ""


def measure_choices(
    recipe: Recipe, candidates: Sequence[Candidate], winners: Mapping[tuple[str, str], Winner]
) -> dict[str, Any]:
    """Agreement of a judge's winners with people's labels or, without them, with the annotations of dev."""
    labels = read_labels(PreferenceLabel, recipe.labels)
    known = {row.id for row in candidates}
    if labels and not any({label.chosen_id, label.rejected_id} <= known for label in labels):
        raise AlignError(
            "no label is of answers that were judged", where=str(recipe.labels), fix="check their ids"
        )
    if not labels:
        truth = load_truth(recipe.truth, recipe.objects_mode)
        labels = true_preferences(candidates, invented(candidates, truth, recipe.objects_mode))
    clusters = {row.id: row.images[0] if row.images else row.prompt_id for row in candidates}
    return calibrate_choices(winners, labels, clusters, recipe.seed)


def _couples(recipe: Recipe, candidates: Sequence[Candidate]) -> list[tuple[Candidate, Candidate]]:
    """At most `max_per_prompt` couples of non-empty answers a prompt, in a seeded order."""
    couples = []
    for _, rows in sorted(by_prompt(candidates).items()):
        all_of_them = list(combinations([row for row in rows if row.text.strip()], 2))
        all_of_them.sort(key=lambda couple: digest_json([recipe.seed, couple[0].id, couple[1].id]))
        couples += sorted(
            all_of_them[: recipe.pairwise.max_per_prompt], key=lambda couple: (couple[0].id, couple[1].id)
        )
    if not couples:
        raise AlignError(
            "no prompt has two answers", where=str(recipe.candidates), fix="sample more answers each"
        )
    return couples


def _question(row: Candidate) -> str:
    return row.prompt[0].marked if len(row.prompt) == 1 else spoken(row.prompt)


def _failures(comparisons: Sequence[Comparison]) -> dict[str, list[str]]:
    """Answer -> why comparisons that it stood in are unscored."""
    found: dict[str, list[str]] = {}
    for row in comparisons:
        if row.unscored_reason:
            found.setdefault(row.first_id, []).append(row.unscored_reason)
            found.setdefault(row.second_id, []).append(row.unscored_reason)
    return found


def _read(reply: Reply | Failure) -> Read[Winner]:
    text = raw(reply)
    return Read(None) if text is None else read_choice(text)


def _comparison(
    recipe: Recipe,
    judge: str,
    couple: tuple[Candidate, Candidate],
    replies: tuple[Reply | Failure, Reply | Failure],
) -> Comparison:
    first, second = couple
    read = [_read(item) for item in replies]
    letters = [None if item.verdict is None else _LETTER_OF[item.verdict] for item in read]
    reasons = [why_unread(reply, item) for reply, item in zip(replies, read, strict=True)]
    winner = None if any(reasons) else winner_of(read[0].verdict, read[1].verdict)
    return Comparison(
        prompt_id=first.prompt_id,
        first_id=first.id,
        second_id=second.id,
        judge=judge,
        prompt_sha256=wording_digest(recipe.pairwise.prompt, VERSION),
        winner=winner,
        unscored_reason=next(filter(None, reasons), ""),
        meta={"letters": letters, "replies": [raw(item) for item in replies], "version": VERSION},
    )


def _verdict(
    recipe: Recipe, judge: str, row: Candidate, outcomes: Sequence[int], failures: Sequence[str]
) -> Verdict:
    """An answer's verdict from its outcomes: 1 for a win, 0 for a tie, -1 for a loss."""
    score, reason = mean_outcome(outcomes)
    return Verdict(
        candidate_id=row.id,
        prompt_id=row.prompt_id,
        judge=judge,
        prompt_sha256=wording_digest(recipe.pairwise.prompt, VERSION),
        score=score,
        unscored_reason=failures[0] if reason and failures else reason,
        meta={
            "won": outcomes.count(1),
            "lost": outcomes.count(-1),
            "tied": outcomes.count(0),
            "version": VERSION,
            "split": row.meta.get("split", ""),
        },
    )


def _bias_line(bias: Mapping[str, Any]) -> str:
    if bias["first_place_share"] is None:
        return "  order bias: nothing to measure it on"
    return (
        f"  order bias: {bias['first_place_share']:.1%} of its choices are the answer shown first (50% is "
        f"unbiased); {bias['inconsistent']:.1%} of the couples change their winner with the order"
    )
