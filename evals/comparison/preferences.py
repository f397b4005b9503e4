"""Which of two checkpoints' answers a judge prefers, asked in both orders.

A judge leans to the answer that it reads first (Zheng et al. 2023, arXiv:2306.05685), so each pair is shown
both ways: an answer wins only if it is preferred in both, and a disagreement is a tie. Consistency (the share
of pairs with the same verdict in both orders) and the share of preferences for what came first are told.

It also leans to the longer answer. The length-controlled win rate is the one that a logistic regression
gives at equal length: P(win) = sigmoid(a + b tanh(d / s)), with d the difference in words and s its standard
deviation (after Dubois et al. 2024, arXiv:2404.04475, without their term for the question's difficulty, which
takes many models to fit). A tie is half a win.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from align.config.recipe import Strict
from align.inputs.images import resolve_image
from align.judging.ask import Judgement, Judgements, JudgeSettings, ask_judge, summarise
from align.judging.pairwise import order_bias, winner_of
from align.judging.replies import PLACES, Side, read_choice
from align.judging.wording import fill
from align.rows.schema import Message, Score
from align.scoring.stats import Array, intervals
from evals.protocol import Sample

Verdict = Side
Outcome = Literal["win", "loss", "tie"]

JUDGE_PROMPT = """\
Two answers were given to the same question about a picture{shown}. Say which one serves the asker better.

What an answer says must be true of the picture: claims about things that are not there weigh most. Then it \
must answer what was asked. Length by itself is worth nothing, and neither is the order of the two.
{facts}
Question: {question}

First answer: {first}

Second answer: {second}

Reply with one word: `first`, `second` or `tie`.
"""


class PairwiseSettings(Strict):
    """Who prefers which answers."""

    judge: JudgeSettings = Field(description="the judge; one that sees needs show_pictures")
    tasks: list[str] = Field(min_length=1, description="tasks whose answers are put side by side")
    show_pictures: bool = Field(default=True, description="send the picture; off for a judge of text alone")


@dataclass(frozen=True)
class Preference:
    """One pair: the judge's verdict in each order, and what follows for the later checkpoint.

    Attributes:
        forth, back: with the earlier checkpoint's answer first, and with the later one's.
        outcome: None where the judge gave no verdict in one of the orders.
        words: by how many words the later answer is longer.
    """

    sample_id: str
    cluster: str
    forth: Verdict | None
    back: Verdict | None
    outcome: Outcome | None
    words: int


def prefer(
    settings: PairwiseSettings,
    samples: Mapping[str, Sample],
    before: Sequence[Score],
    after: Sequence[Score],
) -> tuple[list[Preference], Judgements]:
    """Ask about every sample that both checkpoints answered; equal answers are a tie without asking.

    Raises:
        AlignError: the judge cannot be reached, or a picture is missing.
    """
    later = {score.sample_id: score for score in after}
    pairs = [(score, later[score.sample_id]) for score in before if score.sample_id in later]
    questions: dict[str, Sequence[Message]] = {}
    pictures: dict[str, list[Path]] = {}
    for one, two in pairs:
        if _text(one) == _text(two):
            continue
        sample = samples[one.sample_id]
        paths = [resolve_image(sample.image_root, image) for image in sample.images]
        for key, sides in ((f"{sample.id}#forth", (one, two)), (f"{sample.id}#back", (two, one))):
            questions[key] = _question(sample, _text(sides[0]), _text(sides[1]), settings.show_pictures)
            pictures[key] = paths if settings.show_pictures else []
    judged: Judgements = {}
    if questions:
        judged = ask_judge(settings.judge, questions, JUDGE_PROMPT, read_preference, pictures)
    return [_preference(one, two, judged) for one, two in pairs], judged


def summarise_preferences(
    found: Sequence[Preference], judged: Judgements, resamples: int, seed: int | Sequence[int]
) -> dict[str, Any]:
    """Shares in percent: wins of the later checkpoint, its win rate (a tie is half a win) with a 95% interval
    by cluster, the same at equal length, consistency, and preferences for the answer that came first."""
    scored = [item for item in found if item.outcome is not None]
    about = {"n": len(scored), "unscored": len(found) - len(scored), "judge": summarise(judged)}
    if not scored:
        return about
    counts = {name: sum(item.outcome == name for item in scored) for name in ("win", "tie", "loss")}
    worth = np.array([_WORTH[item.outcome] for item in scored if item.outcome])
    [(low, high)] = intervals([_cluster_sums(scored, worth)], resamples=resamples, seed=seed)
    bias = order_bias([(item.forth, item.back) for item in scored if item.forth and item.back])
    words = np.array([item.words for item in scored], dtype=np.float64)
    return {
        **about,
        "wins": counts["win"],
        "ties": counts["tie"],
        "losses": counts["loss"],
        "win_rate": _percent(float(worth.mean())),
        "ci": [_percent(low), _percent(high)],
        "win_rate_equal_length": _percent(win_rate_at_equal_length(worth, words)),
        "consistency": _percent(bias.consistent),
        "prefers_first": _percent(bias.first_place),
        "mean_words_longer": round(float(words.mean()), 3),
    }


def win_rate_at_equal_length(worth: Array, words: Array, steps: int = 50) -> float:
    """Win rate that the regression of the module's head gives for no difference in length.

    A ridge of 0.01 on both weights keeps them finite where length or one side explains everything.

    Args:
        worth: [N], 1 a win, 0.5 a tie, 0 a loss.
        words: [N], by how many words the later answer is longer.
    """
    spread = float(words.std()) or 1.0
    features = np.stack([np.ones_like(words), np.tanh(words / spread)], axis=1)
    weights = np.zeros(2)
    for _ in range(steps):  # Newton's method; the objective is convex
        chance = 1 / (1 + np.exp(-features @ weights))
        slope = features.T @ (chance - worth) + 0.01 * weights
        curve = (features.T * (chance * (1 - chance))) @ features + 0.01 * np.eye(2)
        weights = weights - np.linalg.solve(curve, slope)
    return float(1 / (1 + np.exp(-weights[0])))


def preference_rows(found: Sequence[Preference], judged: Judgements) -> list[dict[str, Any]]:
    """A line a pair, with the judge's replies in both orders."""
    rows = []
    for item in found:
        asked = [judged.get(f"{item.sample_id}#{order}", ()) for order in ("forth", "back")]
        replies = [row.model_dump() for side in asked for row in side]
        rows.append({**asdict(item), "judgements": replies})
    return rows


def read_preference(reply: str) -> Verdict | None:
    """The verdict in a judge's reply, in the words that the prompt asks for; None without one.

    >>> [read_preference(text) for text in ("First.", "The second answer", "tie", "first or second", "A")]
    ['first', 'second', 'tie', None, None]
    """
    return read_choice(reply, PLACES).verdict


_FOR_LATER: Mapping[Verdict, Outcome] = {"first": "loss", "second": "win", "tie": "tie"}
_WORTH: Mapping[Outcome, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}


def outcome_of(forth: Verdict | None, back: Verdict | None) -> Outcome | None:
    """What two verdicts come to for the later checkpoint, which stands second in `forth` and first in `back`.

    >>> pairs = ("second", "first"), ("first", "second"), ("first", "first"), ("second", "tie"), ("tie", None)
    >>> [outcome_of(*pair) for pair in pairs]
    ['win', 'loss', 'tie', 'tie', None]
    """
    winner = winner_of(forth, back)
    return None if winner is None else _FOR_LATER[winner]


def _preference(one: Score, two: Score, judged: Judgements) -> Preference:
    words = len(_text(two).split()) - len(_text(one).split())
    if _text(one) == _text(two):
        return Preference(one.sample_id, one.cluster, None, None, "tie", 0)
    forth = _majority(judged[f"{one.sample_id}#forth"])
    back = _majority(judged[f"{one.sample_id}#back"])
    return Preference(one.sample_id, one.cluster, forth, back, outcome_of(forth, back), words)


def _majority(rows: Sequence[Judgement]) -> Verdict | None:
    """Of several judgements the one that more than half give, else a tie; None if none is scored."""
    verdicts: list[Verdict] = [row.verdict for row in rows if row.verdict is not None]
    if not verdicts:
        return None
    for name in _FOR_LATER:
        if 2 * verdicts.count(name) > len(verdicts):
            return name
    return "tie"


def _question(sample: Sample, first: str, second: str, is_shown: bool) -> list[Message]:
    label = sample.meta.get("label")
    known = ", ".join(map(str, label)) if isinstance(label, list) else str(label or "")
    parts = {
        "shown": ", which you see" if is_shown else ", which you cannot see",
        "facts": f"\nKnown to be true: {known}\n" if known else "",
        "question": "\n".join(message.marked for message in sample.messages if message.role == "user"),
        "first": first,
        "second": second,
    }
    return [Message(role="user", content=fill(JUDGE_PROMPT, parts))]


def _cluster_sums(found: Sequence[Preference], worth: Array) -> Array:
    order = {name: place for place, name in enumerate(sorted({item.cluster for item in found}))}
    sums = np.zeros((len(order), 2))
    for item, value in zip(found, worth, strict=True):
        sums[order[item.cluster]] += (value, 1.0)
    return sums


def _text(score: Score) -> str:
    return str(score.meta.get("text") or "")


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 4)
