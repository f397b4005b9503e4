"""Which couples of judged answers become pairs: by score gap, caps and confirmed claims, then balanced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from align.objects import find_objects
from align.schema import Message, PreferenceRow, Span, Spans
from data_tools.claims import split_objects
from data_tools.judged_answers import Answer, JudgedAnswers
from data_tools.length_balance import Balanced, Pair, balance, mean_gap
from data_tools.minimal_edit import without_objects
from data_tools.pairs_recipe import Recipe
from data_tools.style_balance import balance_style
from data_tools.tally import Tally


@dataclass
class Eligible:
    """The pairs of one split that may be taken, as few a prompt as balancing can need.

    Attributes:
        pairs: prompt id -> pairs, best first.
        possible: how many there were before all but the best of each prompt were forgotten.
    """

    pairs: dict[str, list[Pair]] = field(default_factory=dict)
    possible: int = 0

    def add(self, prompt_id: str, pairs: Sequence[Pair], most: int) -> None:
        """Keep the `most` best pairs that shorten and the `most` best that don't: balancing prefers one kind
        or the other, and takes no more than `most`."""
        self.possible += len(pairs)
        best = sorted(pairs, key=lambda pair: pair.rank)
        shorter, others = ([pair for pair in best if (pair.gap < 0) is side] for side in (True, False))
        self.pairs[prompt_id] = shorter[:most] + others[:most]


@dataclass(frozen=True)
class Selected:
    """The pairs of one split.

    Attributes:
        balanced: how lengths were balanced.
        style: gaps by style feature before and after balancing; None where style was not balanced.
    """

    balanced: Balanced
    style: dict[str, dict[str, float]] | None = None


def select(recipe: Recipe, found: Eligible, answers: JudgedAnswers, tally: Tally) -> Selected:
    """The pairs of one split, balanced in length, and in style if the recipe wants it."""
    tolerance = float("inf") if recipe.length_tolerance is None else recipe.length_tolerance
    balanced = balance(found.pairs, recipe.max_pairs_per_prompt, tolerance, recipe.max_trimmed, recipe.seed)
    for pair in balanced.trimmed:
        tally.drop("length balance", f"{pair.chosen_id}>{pair.rejected_id}")
    surplus = found.possible - len(balanced.pairs) - len(balanced.trimmed)
    if surplus:
        tally.drop("more than max_pairs_per_prompt", "", surplus)
    if recipe.style_tolerance is None or not balanced.pairs:
        tally.keep(len(balanced.pairs))
        return Selected(balanced)
    pairs = balanced.pairs
    alike = balance_style(
        _texts(pairs, answers),
        [pair.gap for pair in pairs],
        recipe.style_tolerance,
        recipe.length_tolerance,
        int(recipe.max_trimmed * len(pairs)),
    )
    for place in alike.taken:
        tally.drop("style balance", f"{pairs[place].chosen_id}>{pairs[place].rejected_id}")
    kept = [pairs[place] for place in alike.kept]
    tally.keep(len(kept))
    return Selected(
        replace(balanced, pairs=kept, after=mean_gap(kept)), {"before": alike.before, "after": alike.after}
    )


def selected_rows(pairs: Sequence[Pair], answers: JudgedAnswers) -> Iterator[tuple[str, str, PreferenceRow]]:
    """(split, prompt id, training row) of each pair, prompt by prompt."""
    wanted: dict[str, list[Pair]] = {}
    for pair in pairs:
        wanted.setdefault(pair.prompt_id, []).append(pair)
    for split, prompt_id, found in answers.prompts():
        by_id = {answer.row.id: answer for answer in found}
        for pair in wanted.get(prompt_id, ()):
            yield split, prompt_id, preference_row(pair, by_id)


def _texts(pairs: Sequence[Pair], answers: JudgedAnswers) -> list[tuple[str, str]]:
    ids = {name for pair in pairs for name in (pair.chosen_id, pair.rejected_id)}
    texts = {
        answer.row.id: answer.row.text
        for _, _, found in answers.prompts()
        for answer in found
        if answer.row.id in ids
    }
    return [(texts[pair.chosen_id], texts[pair.rejected_id]) for pair in pairs]


def edited_pairs(recipe: Recipe, answers: Sequence[Answer], tally: Tally) -> list[PreferenceRow]:
    """Answers of one prompt against themselves without what the judge denies, most denied claims first."""
    rows = []
    for answer in sorted(answers, key=lambda answer: (answer.score, answer.row.id)):
        denied = [claim.text for claim in answer.verdict.claims if claim.supported is False]
        if not denied:
            tally.drop("nothing denied", answer.row.id)
        elif answer.row.finish_reason != "stop":
            tally.drop("answer is truncated", answer.row.id)
        elif len(rows) == recipe.max_pairs_per_prompt:
            tally.drop("more than max_pairs_per_prompt", answer.row.id)
        elif (text := without_objects(answer.row.text, denied, recipe.objects_mode)) is None:
            tally.drop("no clean edit", answer.row.id)
        elif not set(split_objects(text, recipe.objects_mode)) - set(denied):
            tally.drop("the edit leaves no object", answer.row.id)
        else:
            tally.keep()
            rows.append(_edited_row(recipe, answer, text, denied))
    return rows


def _edited_row(recipe: Recipe, answer: Answer, text: str, denied: Sequence[str]) -> PreferenceRow:
    meta: dict[str, Any] = {key: value for key, value in answer.row.meta.items() if key != "count"}
    meta |= {
        "margin": float(len(denied)),
        "judge": answer.verdict.judge,
        "edit": "objects removed",
        "rejected_tokens": answer.row.num_tokens,
        "rejected_denied": list(denied),
        "chosen_confirmed": [claim.text for claim in answer.verdict.claims if claim.supported],
    }
    return PreferenceRow(
        id=f"edit>{answer.row.id}",
        images=answer.row.images,
        prompt=answer.row.prompt,
        chosen=[Message(role="assistant", content=text)],
        rejected=[Message(role="assistant", content=answer.row.text)],
        spans=Spans(
            rejected=[
                Span(start=mention.start, end=mention.end, weight=recipe.span_weight)
                for mention in find_objects(answer.row.text, recipe.objects_mode)
                if mention.category in denied
            ]
        ),
        meta=meta,
    )


def eligible_pairs(recipe: Recipe, answers: Sequence[Answer], tally: Tally) -> list[Pair]:
    """All pairs of one prompt that may be taken; each refused couple of answers is counted once."""
    ordered = sorted(answers, key=lambda answer: (-answer.score, answer.row.id))
    scores = [answer.score for answer in ordered]
    pairs = []
    for i, chosen in enumerate(ordered):
        for rejected in ordered[i + 1 :]:
            reason = _refusal(recipe, chosen, rejected, max(scores), min(scores))
            if reason:
                tally.drop(reason, f"{chosen.row.id}>{rejected.row.id}")
                continue
            gap = chosen.row.num_tokens - rejected.row.num_tokens
            margin = chosen.score - rejected.score
            pairs.append(Pair(chosen.row.prompt_id, chosen.row.id, rejected.row.id, margin, gap))
    return pairs


def _refusal(recipe: Recipe, chosen: Answer, rejected: Answer, best: float, worst: float) -> str:
    if chosen.score == rejected.score:
        return "tie"
    if chosen.score - rejected.score < recipe.min_gap:
        return "score gap below min_gap"
    if chosen.row.text == rejected.row.text:
        return "identical texts"
    if chosen.row.finish_reason != "stop":
        return "chosen answer is truncated"
    if recipe.strategy == "best_worst" and (chosen.score < best or rejected.score > worst):
        return "not best against worst"
    wanted = recipe.min_confirmed_gain
    if wanted is not None and chosen.confirmed - rejected.confirmed < wanted * (
        chosen.score - rejected.score
    ):
        return "chosen answer confirms too little"
    return ""


def preference_row(pair: Pair, answers: Mapping[str, Answer]) -> PreferenceRow:
    """The training row of a pair."""
    chosen, rejected = answers[pair.chosen_id], answers[pair.rejected_id]
    meta: dict[str, Any] = {"margin": pair.margin, "judge": chosen.verdict.judge}
    meta |= {key: value for key, value in chosen.row.meta.items() if key != "count"}
    for side, answer in (("chosen", chosen), ("rejected", rejected)):
        meta[f"{side}_score"] = answer.score
        meta[f"{side}_tokens"] = answer.row.num_tokens
        meta[f"{side}_confirmed"] = [c.text for c in answer.verdict.claims if c.supported]
        meta[f"{side}_denied"] = [c.text for c in answer.verdict.claims if not c.supported]
    return PreferenceRow(
        id=f"{pair.chosen_id}>{pair.rejected_id}",
        images=chosen.row.images,
        prompt=chosen.row.prompt,
        chosen=[Message(role="assistant", content=chosen.row.text)],
        rejected=[Message(role="assistant", content=rejected.row.text)],
        meta=meta,
    )
