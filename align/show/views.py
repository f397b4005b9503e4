"""A row of any kind as what a person wants to see of it: pictures, texts with their labels, and facts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from align.rows.schema import (
    BaseRow,
    Candidate,
    Claim,
    Message,
    Prediction,
    PreferenceRow,
    PromptRow,
    Score,
    SFTRow,
    Span,
    Verdict,
)

_LONG = 60


@dataclass(frozen=True)
class View:
    """A row to look at.

    Attributes:
        images: paths under the image root; `worse`: those of `rejected_images`.
        texts: (label, text), in the row's order.
        facts: everything else, short.
    """

    id: str
    images: Sequence[str] = ()
    worse: Sequence[str] = ()
    texts: Sequence[tuple[str, str]] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def view(row: BaseRow) -> View:
    """The view of a row of any class of `align.rows.schema`."""
    return _VIEWS[type(row)](row)


def plain_view(raw: Any, place: int) -> View:
    """The view of any JSON value: long texts of an object as texts, everything else as facts."""
    values = raw if isinstance(raw, dict) else {"value": raw}
    named = next((str(values[name]) for name in ("id", "where") if values.get(name)), f"row {place}")
    plain = {str(name): value for name, value in values.items()}
    inner = plain.get("row")
    if isinstance(inner, dict):
        plain["row"] = json.dumps(inner, ensure_ascii=False, default=str, indent=1)
    long = {name for name, value in plain.items() if isinstance(value, str) and len(value) > _LONG}
    texts = [(name, plain[name]) for name in plain if name in long]
    return View(named, texts=texts, facts=_facts({k: v for k, v in plain.items() if k not in long}))


def _turns(messages: Iterable[Message], label: str = "") -> list[tuple[str, str]]:
    return [(label or turn.role, turn.marked) for turn in messages]


def _facts(values: Mapping[str, Any]) -> dict[str, str]:
    """Non-empty values as text; nested ones as JSON."""
    found = {}
    for name, value in values.items():
        if value not in (None, "", [], {}):
            plain = isinstance(value, str | int | float)
            found[name] = str(value) if plain else json.dumps(value, ensure_ascii=False, default=str)
    return found


def _instruction(row: SFTRow) -> View:
    return View(row.id, row.images, (), _turns(row.messages), _facts(row.meta))


def _prompt(row: PromptRow) -> View:
    return View(row.id, row.images, (), _turns(row.prompt), _facts(row.meta))


def _pair(row: PreferenceRow) -> View:
    texts = _turns(row.prompt) + _turns(row.chosen, "chosen") + _turns(row.rejected, "rejected")
    spans = {
        f"spans of {side}": ", ".join(_span(span, answer[-1].text) for span in found)
        for side, found, answer in (
            ("chosen", row.spans.chosen, row.chosen),
            ("rejected", row.spans.rejected, row.rejected),
        )
    }
    return View(row.id, row.images, row.rejected_images, texts, _facts({**spans, **row.meta}))


def _span(span: Span, text: str) -> str:
    return f"{text[span.start : span.end]!r} x{span.weight:g}"


def _candidate(row: Candidate) -> View:
    facts = {"finish_reason": row.finish_reason, "num_tokens": row.num_tokens, **row.meta}
    return View(row.id, row.images, (), [*_turns(row.prompt), ("answer", row.text)], _facts(facts))


def _verdict(row: Verdict) -> View:
    claims = [(f"claim {number}", _claim(claim)) for number, claim in enumerate(row.claims, 1)]
    score = "unscored" if row.score is None else f"{row.score:g}"
    facts = {"score": score, "unscored_reason": row.unscored_reason, "judge": row.judge, **row.meta}
    counts = [count.model_dump(exclude_defaults=True) for count in row.counts]
    facts |= {
        count.pop("kind"): ", ".join(f"{number} {name}" for name, number in count.items()) for count in counts
    }
    if row.repeated:
        facts["named again"] = ", ".join(row.repeated)
    return View(row.candidate_id, (), (), claims, _facts(facts))


def _claim(claim: Claim) -> str:
    return f"{claim.text}\n{claim.question} yes {_share(claim.p_yes)}, no {_share(claim.p_no)}"


def _share(probability: float | None) -> str:
    return "?" if probability is None else f"{probability:.3f}"


def _prediction(row: Prediction) -> View:
    label, text = ("answer", row.text) if row.error is None else ("failed", row.error)
    facts = {"task": row.task, "finish_reason": row.finish_reason, "num_tokens": row.num_tokens}
    return View(row.sample_id, (), (), [(label, text or "")], _facts(facts))


def _score(row: Score) -> View:
    facts = {"task": row.task, "cluster": row.cluster, "parsed": row.parsed, **row.values, **row.meta}
    return View(row.sample_id, facts=_facts(facts))


_VIEWS: dict[type[BaseRow], Callable[[Any], View]] = {
    SFTRow: _instruction,
    PromptRow: _prompt,
    PreferenceRow: _pair,
    Candidate: _candidate,
    Verdict: _verdict,
    Prediction: _prediction,
    Score: _score,
}
