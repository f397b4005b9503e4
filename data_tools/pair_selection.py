"""Which couples of judged answers become pairs: by score gap, caps and confirmed claims, then balanced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from align.errors import AlignError
from align.objects import find_objects
from align.schema import Candidate, Message, PreferenceRow, Span, Spans, Verdict, read_rows
from data_tools.claims import split_objects
from data_tools.length_balance import Balanced, Pair, balance, mean_gap
from data_tools.minimal_edit import without_objects
from data_tools.pairs_recipe import Recipe
from data_tools.style_balance import balance_style
from data_tools.tally import Tally


@dataclass(frozen=True)
class Answer:
    """A candidate with its verdict."""

    row: Candidate
    verdict: Verdict

    @property
    def score(self) -> float:
        """The judge's score; only scored answers become `Answer`s."""
        return self.verdict.score or 0.0

    @property
    def confirmed(self) -> int:
        """Claims that the judge finds in the picture."""
        return sum(claim.supported is True for claim in self.verdict.claims)


def join(
    candidates: Sequence[Candidate], verdicts: Path, tallies: Mapping[str, tuple[Tally, Tally]]
) -> dict[str, dict[str, list[Answer]]]:
    """Split -> prompt id -> its usable answers; the others are counted with a reason.

    Raises:
        AlignError: a candidate without verdict: the two files are not of the same run.
    """
    judged = {row.candidate_id: row for row in read_rows(Verdict, verdicts)}
    found: dict[str, dict[str, list[Answer]]] = {split: {} for split in tallies}
    for row in candidates:
        if row.id not in judged:
            raise AlignError(
                f"no verdict on candidate {row.id}", where=str(verdicts), fix="run the judge again"
            )
        split = "dev" if row.meta.get("split") == "dev" else "train"
        tally, verdict = tallies[split][0], judged[row.id]
        if not row.text.strip():
            tally.drop("empty answer", row.id)
        elif verdict.score is None:
            tally.drop(f"unscored: {verdict.unscored_reason.split(':')[0]}", row.id)
        else:
            tally.keep()
            found[split].setdefault(row.prompt_id, []).append(Answer(row, verdict))
    return found


@dataclass(frozen=True)
class Built:
    """The pairs of one split.

    Attributes:
        prompts: how many prompts they come from.
        balanced: how lengths were balanced; None for minimal edits.
        style: gaps by style feature before and after balancing; None where style was not balanced.
    """

    rows: list[PreferenceRow]
    prompts: int
    balanced: Balanced | None = None
    style: dict[str, dict[str, float]] | None = None


def build(recipe: Recipe, answers: Mapping[str, Sequence[Answer]], tally: Tally) -> Built:
    """The pairs of one split by the recipe's strategy."""
    if recipe.strategy == "minimal_edit":
        rows = [row for items in answers.values() for row in edited_pairs(recipe, items, tally)]
        return Built(rows, len({row.meta["prompt_id"] for row in rows}))
    found = select(recipe, answers, tally)
    by_id = {answer.row.id: answer for items in answers.values() for answer in items}
    pairs, style = found.pairs, None
    if recipe.style_tolerance is not None and pairs:
        texts = [(by_id[pair.chosen_id].row.text, by_id[pair.rejected_id].row.text) for pair in pairs]
        most = int(recipe.max_trimmed * len(pairs))
        alike = balance_style(
            texts, [pair.gap for pair in pairs], recipe.style_tolerance, recipe.length_tolerance, most
        )
        for place in alike.taken:
            tally.drop("style balance", f"{pairs[place].chosen_id}>{pairs[place].rejected_id}")
        pairs = [pairs[place] for place in alike.kept]
        found = replace(found, pairs=pairs, after=mean_gap(pairs))
        style = {"before": alike.before, "after": alike.after}
    tally.keep(len(pairs))
    rows = [preference_row(pair, by_id) for pair in pairs]
    return Built(rows, len({pair.prompt_id for pair in pairs}), found, style)


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
        "prompt_id": answer.row.prompt_id,
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


def select(recipe: Recipe, answers: Mapping[str, Sequence[Answer]], tally: Tally) -> Balanced:
    """The pairs of one split, balanced in length; those that stay are counted by the caller."""
    eligible = {
        prompt_id: eligible_pairs(recipe, items, tally) for prompt_id, items in sorted(answers.items())
    }
    possible = sum(len(pairs) for pairs in eligible.values())
    tolerance = float("inf") if recipe.length_tolerance is None else recipe.length_tolerance
    found = balance(eligible, recipe.max_pairs_per_prompt, tolerance, recipe.max_trimmed, recipe.seed)
    for pair in found.trimmed:
        tally.drop("length balance", f"{pair.chosen_id}>{pair.rejected_id}")
    surplus = possible - len(found.pairs) - len(found.trimmed)
    if surplus:
        tally.drop("more than max_pairs_per_prompt", "", surplus)
    return found


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
    allowed = recipe.max_confirmed_loss
    if allowed is not None and chosen.confirmed < rejected.confirmed - allowed:
        return "chosen answer confirms less"
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
