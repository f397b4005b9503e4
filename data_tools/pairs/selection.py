"""Which couples of judged answers become pairs: by score gap, caps and claims, then balanced."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.objects.mentions import find_objects
from align.rows.schema import Candidate, Message, PreferenceRow, Span, Spans
from align.rows.tally import Tally
from data_tools.material.answer_counts import FEATURES
from data_tools.material.answer_style import BALANCED, style_of
from data_tools.material.claims import split_objects
from data_tools.pairs.balance import Balanced, GapCounts, Pair, Picker
from data_tools.pairs.judged_answers import Answer, JudgedAnswers
from data_tools.pairs.minimal_edit import without_objects
from data_tools.pairs.recipe import Recipe
from data_tools.pairs.style_balance import balance_style


@dataclass(frozen=True)
class Selected:
    """Which pairs of one split to take, and how they were balanced.

    Attributes:
        gaps: mean of chosen minus rejected over the pairs to take, of each of `answer_counts.FEATURES`.
        style: gaps by style feature before and after balancing; None where style was not balanced.
        off_style: the pairs that style balance takes away, by their place among those that are picked.
    """

    balanced: Balanced
    gaps: tuple[float, ...]
    style: dict[str, dict[str, float]] | None = None
    off_style: frozenset[int] = frozenset()


class Selection:
    """What one split could bring, counted prompt by prompt (`look`), then `balance`d."""

    def __init__(self, recipe: Recipe, tally: Tally) -> None:
        self.recipe, self.tally = recipe, tally
        self._counts = GapCounts(recipe.max_pairs_per_prompt, recipe.seed, recipe.limits)
        self._possible = 0

    def look(self, prompt_id: str, found: Sequence[Answer]) -> None:
        """Count what this prompt could bring."""
        pairs = eligible_pairs(self.recipe, found, self.tally)
        self._possible += len(pairs)
        self._counts.add(prompt_id, pairs)

    def balance(self, split: str, answers: JudgedAnswers) -> Selected:
        """Balance the counts, and style if the recipe wants it: of each pair a few numbers are held then."""
        recipe = self.recipe
        balanced = self._counts.balanced(recipe.max_trimmed)
        if surplus := self._possible - balanced.pairs - balanced.trimmed:
            self.tally.drop("more than max_pairs_per_prompt", count=surplus)
        if recipe.style_tolerance is None or not balanced.pairs:
            return Selected(balanced, balanced.after)
        styles, gaps = self._features(split, answers, Picker(balanced))
        most = int(recipe.max_trimmed * len(gaps))
        alike = balance_style(styles, gaps, recipe.style_tolerance, recipe.limits, most)
        return Selected(
            balanced,
            tuple(float(mean) for mean in gaps[alike.kept].mean(axis=0)),
            {"before": alike.before, "after": alike.after},
            frozenset(alike.taken.tolist()),
        )

    def _features(
        self, split: str, answers: JudgedAnswers, picker: Picker
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Style [N, 2, F] and gaps [N, G] of the pairs that are picked, in their order."""
        styles, gaps = array("d"), array("d")
        for other, prompt_id, judged in answers.prompts(title="reading styles"):
            if other != split:
                continue
            texts = {answer.row.id: answer.row.text for answer in judged}
            pairs, _ = picker.pick(prompt_id, eligible_pairs(self.recipe, judged))
            for pair in pairs:
                styles.extend(style_of(texts[pair.chosen_id]))
                styles.extend(style_of(texts[pair.rejected_id]))
                gaps.extend(pair.gaps)
        return (
            np.frombuffer(styles, dtype=np.float64).reshape(-1, 2, len(BALANCED)),
            np.frombuffer(gaps, dtype=np.float64).reshape(-1, len(FEATURES)),
        )


def selected_rows(
    recipe: Recipe, selected: Mapping[str, Selected], answers: JudgedAnswers, tallies: Mapping[str, Tally]
) -> Iterator[tuple[str, str, PreferenceRow]]:
    """(split, prompt id, training row) of every pair to take, prompt by prompt; the others are counted."""
    pickers = {split: Picker(found.balanced) for split, found in selected.items()}
    picked = dict.fromkeys(selected, 0)
    for split, prompt_id, found in answers.prompts(title="writing pairs"):
        kept, trimmed = pickers[split].pick(prompt_id, eligible_pairs(recipe, found))
        by_id = {answer.row.id: answer for answer in found}
        for pair in trimmed:
            tallies[split].drop("balance", pair.row_id)
        for place, pair in enumerate(kept, picked[split]):
            if place in selected[split].off_style:
                tallies[split].drop("style balance", pair.row_id)
            else:
                tallies[split].keep()
                yield split, prompt_id, preference_row(pair, by_id)
        picked[split] += len(kept)


def edited_pairs(recipe: Recipe, answers: Sequence[Answer], tally: Tally) -> list[PreferenceRow]:
    """Answers of one prompt against themselves without what the judge denies, most denied claims first."""
    rows = []
    for answer in sorted(answers, key=lambda answer: (answer.score, answer.row.id)):
        denied = objects_of(answer, supported=False)
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
        "chosen_confirmed": objects_of(answer, supported=True),
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


def eligible_pairs(recipe: Recipe, answers: Sequence[Answer], tally: Tally | None = None) -> list[Pair]:
    """All pairs of one prompt that may be taken; each refused couple of answers is counted in the tally."""
    ordered = sorted(answers, key=lambda answer: (-answer.score, answer.row.id))
    scores = [answer.score for answer in ordered]
    pairs = []
    for i, chosen in enumerate(ordered):
        for rejected in ordered[i + 1 :]:
            reason = _refusal(recipe, chosen, rejected, max(scores), min(scores))
            if reason:
                if tally is not None:
                    tally.drop(reason, f"{chosen.row.id}>{rejected.row.id}")
                continue
            gaps = tuple(ours - theirs for ours, theirs in zip(chosen.counts, rejected.counts, strict=True))
            margin = chosen.score - rejected.score
            pairs.append(Pair(chosen.row.prompt_id, chosen.row.id, rejected.row.id, margin, gaps))
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
    return _claims_refusal(recipe, chosen, rejected)


def _claims_refusal(recipe: Recipe, chosen: Answer, rejected: Answer) -> str:
    """By what the answers claim; only repetition counts where the judge asked no claims."""
    more = recipe.max_more_repeats
    if more is not None and chosen.counts.repetition - rejected.counts.repetition > more:
        return "chosen answer repeats more"
    if not (chosen.verdict.claims and rejected.verdict.claims):
        return ""
    most = recipe.max_chosen_faults
    if most is not None and chosen.faults > most:
        return "chosen answer has too many faults"
    drop = rejected.faults - chosen.faults
    if recipe.min_fault_drop is not None and drop < recipe.min_fault_drop:
        return "chosen answer has as many faults"
    wanted = recipe.min_confirmed_gain
    if wanted is not None and chosen.confirmed - rejected.confirmed < wanted * drop:
        return "chosen answer confirms too little"
    return ""


def objects_of(answer: Answer, supported: bool) -> list[str]:
    """The objects whose presence the judge confirms, or denies."""
    claims = (claim for claim in answer.verdict.claims if claim.kind == "presence")
    return [claim.category for claim in claims if claim.supported is supported]


def preference_row(pair: Pair, answers: Mapping[str, Answer]) -> PreferenceRow:
    """The training row of a pair."""
    chosen, rejected = answers[pair.chosen_id], answers[pair.rejected_id]
    meta: dict[str, Any] = {"margin": pair.margin, "judge": chosen.verdict.judge}
    meta |= {key: value for key, value in chosen.row.meta.items() if key != "count"}
    for side, answer in (("chosen", chosen), ("rejected", rejected)):
        meta[f"{side}_score"] = answer.score
        meta[f"{side}_tokens"] = answer.row.num_tokens
        meta[f"{side}_confirmed"] = objects_of(answer, supported=True)
        meta[f"{side}_denied"] = objects_of(answer, supported=False)
        meta |= {f"{side}_{name}": value for name, value in _summed(answer).items()}
    return PreferenceRow(
        id=pair.row_id,
        images=chosen.row.images,
        prompt=chosen.row.prompt,
        chosen=[_turn(chosen.row)],
        rejected=[_turn(rejected.row)],
        meta=meta,
    )


def _turn(answer: Candidate) -> Message:
    """An answer as it was sampled, with its thoughts."""
    return Message(role="assistant", content=answer.text, reasoning=answer.reasoning)


def _summed(answer: Answer) -> dict[str, int]:
    """What `align pairs` and the audit average over chosen and rejected answers."""
    claims = {"true": answer.confirmed, "false": answer.denied} if answer.verdict.claims else {}
    counts = answer.counts._asdict()
    return claims | {name: counts[name] for name in FEATURES if name != "length"}
