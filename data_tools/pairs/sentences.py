"""Pairs of next sentences: one without an invention against one with, behind the same beginning.

SENTINEL (Peng et al. 2025, arXiv 2507.12455): an invention is answered where it first stands, so the answer
up to there is the context of both sides and free of inventions, and neither side goes on behind its sentence.
There ten next sentences are sampled behind each context, one of which becomes part of the next context. Here
the answers are already whole, so a context is what two of them happen to begin with, most often nothing.

    context   "This is a farm."                     spans of weight 0 on both sides
    chosen    "This is a farm. There is a cow."     all of whose objects are confirmed
    rejected  "This is a farm. There is a zebra."   one of whose objects is denied

Train with `objective.token_weights: {gamma: 1, variant: released, end: 0}` (C-DPO): the context is left out,
and the end of turn, which these answers did not have there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from align.objects.mentions import Mode
from align.rows.schema import Message, PreferenceRow, Span, Spans
from align.rows.tally import Tally
from data_tools.material.claims import split_objects
from data_tools.pairs.judged_answers import Answer
from data_tools.pairs.minimal_edit import sentences
from data_tools.pairs.recipe import Recipe


@dataclass(frozen=True)
class Next:
    """A sentence that an answer goes on with.

    Attributes:
        objects: what makes it true or false: the confirmed ones that it names, or the denied ones.
    """

    text: str
    answer: Answer
    objects: tuple[str, ...]


@dataclass
class Context:
    """What some answers of a prompt begin with, and how they go on.

    Attributes:
        text: the sentences so far, as they stand there; empty at the beginning of an answer.
        number: how many sentences that is.
        objects: that it names, all confirmed.
        true, false: by their text, each of the first answer that goes on so.
    """

    text: str
    number: int
    objects: frozenset[str]
    true: dict[str, Next] = field(default_factory=dict)
    false: dict[str, Next] = field(default_factory=dict)

    def couples(self) -> list[tuple[Next, Next]]:
        """A true and a false sentence each; true ones that name an object of the context come first, which
        are all that SENTINEL takes."""
        coherent = sorted(self.true.values(), key=lambda one: self.objects.isdisjoint(one.objects))
        return list(zip(coherent, self.false.values(), strict=False))


def sentence_pairs(recipe: Recipe, answers: Sequence[Answer], tally: Tally) -> list[PreferenceRow]:
    """Pairs of one prompt, longer contexts first; a sentence behind a context is in one pair at most."""
    found = contexts(answers, recipe.objects_mode)
    rows: list[PreferenceRow] = []
    for context in sorted(found, key=lambda one: (-one.number, one.text)):
        couples = context.couples()
        fit = couples[: recipe.max_pairs_per_prompt - len(rows)]
        rows += [_row(context, true, false) for true, false in fit]
        tally.keep(len(fit))
        for reason, count in (
            ("more than max_pairs_per_prompt", len(couples) - len(fit)),
            ("true sentence without a false one", len(context.true) - len(couples)),
            ("false sentence without a true one", len(context.false) - len(couples)),
        ):
            if count:
                tally.drop(reason, count=count)
    return rows


def contexts(answers: Sequence[Answer], mode: Mode) -> list[Context]:
    """What the answers of one prompt begin with, each answer up to its first invention.

    A sentence with an object that the judge could not judge ends the use of its answer too, and the last
    sentence of an answer that was cut off is none.
    """
    found: dict[str, Context] = {}
    for answer in sorted(answers, key=lambda one: one.row.id):
        claims = [claim for claim in answer.verdict.claims if claim.kind == "presence"]
        supported = {claim.category: claim.supported for claim in claims}
        said = sentences(answer.row.text)
        before, objects = "", frozenset[str]()
        for number, sentence in enumerate(said if answer.row.finish_reason == "stop" else said[:-1]):
            context = found.setdefault(before.strip(), Context(before, number, objects))
            names, text = split_objects(sentence, mode), sentence.strip()
            if denied := [name for name in names if supported.get(name) is False]:
                context.false.setdefault(text, Next(text, answer, tuple(denied)))
            if any(not supported.get(name) for name in names):
                break
            if names:
                context.true.setdefault(text, Next(text, answer, tuple(names)))
            before, objects = before + sentence, objects | frozenset(names)
    return list(found.values())


def _row(context: Context, true: Next, false: Next) -> PreferenceRow:
    winner = true.answer
    meta: dict[str, Any] = {key: value for key, value in winner.row.meta.items() if key != "count"}
    meta |= {
        "margin": float(len(false.objects)),
        "judge": winner.verdict.judge,
        "edit": "sentence",
        "context_sentences": context.number,
        "chosen_confirmed": list(true.objects),
        "rejected_denied": list(false.objects),
    }
    shared = len(context.text.rstrip())
    spans = [Span(start=0, end=shared, weight=0.0)] if shared else []
    return PreferenceRow(
        id=f"sentence{context.number}>{winner.row.id}>{false.answer.row.id}",
        images=winner.row.images,
        prompt=winner.row.prompt,
        chosen=[Message(role="assistant", content=context.text + true.text)],
        rejected=[Message(role="assistant", content=context.text + false.text)],
        spans=Spans(chosen=spans, rejected=list(spans)),
        meta=meta,
    )
