"""Make preference pairs of corrected answers: what was written is rejected, the correction is chosen.

As in RLHF-V (Yu et al. 2023, arXiv 2312.00849): people mend the wrong parts of an answer and leave the rest,
and `spans` mark what they mended in both, with a weight that dense DPO reads (objective.token_weights).
Either of two inputs:

  corrections   JSONL rows {id, images, prompt, answer, edits: [{start, end, text}]}: characters `start` to
                `end` (exclusive) of the answer become `text`
  pairs         preference rows without spans, such as an imported RLHF-V: the words that differ are marked

  align corrections run_dir=runs/my corrections=my/corrections.jsonl

Writes `pairs.parquet`, `dropped.json` and `quarantine.jsonl`. Next: `align dpo` with objective.token_weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from align.config.recipe import StageRecipe
from align.errors import AlignError
from align.progress import say
from align.rows.schema import BaseRow, Message, PreferenceRow, Span, Spans, read_rows, write_rows
from align.rows.tally import Tally
from align.run.folder import RunFolder
from data_tools.material.edit_spans import DEFAULT_WEIGHT, changed_share, edit_spans


class Edit(BaseRow):
    """Characters `start` to `end` (exclusive) of an answer become `text`; equal ones insert."""

    start: int = Field(ge=0)
    end: int = Field(ge=0)
    text: str


class CorrectionRow(BaseRow):
    """An answer and how it was mended."""

    id: str = Field(min_length=1)
    images: list[str] = Field(default_factory=list)
    prompt: list[Message] = Field(min_length=1)
    answer: str
    edits: list[Edit] = Field(min_length=1)
    meta: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _edits_fit(self) -> CorrectionRow:
        end = 0
        for edit in self.edits:
            if not end <= edit.start <= edit.end <= len(self.answer):
                raise ValueError("edits must be in order, without overlap, and inside the answer")
            end = edit.end
        return self


class Recipe(StageRecipe):
    """The recipe of `align corrections`."""

    name: str = "corrections"
    corrections: Path | None = Field(default=None, description="answers with their edits, JSONL")
    pairs: Path | None = Field(default=None, description="preference rows to mark, .parquet or .jsonl")
    weight: float = Field(default=DEFAULT_WEIGHT, gt=0, description="of what was edited; the rest weighs 1")
    max_changed: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="with a larger share of edited characters it is no correction but another answer",
    )

    @model_validator(mode="after")
    def _one_input(self) -> Recipe:
        if (self.corrections is None) == (self.pairs is None):
            raise ValueError("give `corrections` or `pairs`")
        return self


def run(recipe: Recipe) -> RunFolder:
    """Write the pairs; byte-equal for the same recipe and inputs.

    Raises:
        AlignError: no input, or no pair left.
    """
    source = recipe.corrections or recipe.pairs
    assert source is not None
    folder = RunFolder.open(recipe, {"corrections" if recipe.corrections else "pairs": source})
    if folder.is_complete:
        return folder
    with folder:
        tally, rows = Tally("corrections"), []
        with (folder.work / "quarantine.jsonl").open("w", encoding="utf-8") as out:

            def quarantine(where: str, reason: str, raw: Any) -> None:
                place = where.removeprefix(str(source)).strip(": ")
                out.write(json.dumps({"where": place, "reason": reason}) + "\n")
                tally.drop("bad row", place)

            for row in _read(recipe, quarantine):
                reason = _refusal(recipe, row)
                if reason:
                    tally.drop(reason, row.id)
                else:
                    tally.keep()
                    rows.append(row)
        tally.show()
        (folder.work / "dropped.json").write_text(json.dumps({tally.what: tally.to_json()}, indent=1) + "\n")
        if not rows:
            raise AlignError("no pairs left", where=str(source), fix="see the table above")
        write_rows(folder.work / "pairs.parquet", rows)
        metrics = {
            "pairs": len(rows),
            "changed_chosen": _mean_changed(rows, "chosen"),
            "changed_rejected": _mean_changed(rows, "rejected"),
        }
        say(
            f"  {metrics['changed_rejected']:.1%} of the rejected and {metrics['changed_chosen']:.1%} of the "
            "chosen characters are marked"
        )
        folder.complete(metrics=metrics, next_step="align dpo RECIPE objective.token_weights.gamma=5")
    return folder


def corrected(row: CorrectionRow, weight: float) -> PreferenceRow | None:
    """The pair of a correction, its edits as spans on both sides; None if the edits change nothing."""
    pieces: list[str] = []
    spans, done, length = Spans(), 0, 0
    for edit in row.edits:
        kept = row.answer[done : edit.start]
        pieces += [kept, edit.text]
        length += len(kept)
        if edit.text:
            spans.chosen.append(Span(start=length, end=length + len(edit.text), weight=weight))
        if edit.start < edit.end:
            spans.rejected.append(Span(start=edit.start, end=edit.end, weight=weight))
        done, length = edit.end, length + len(edit.text)
    chosen = "".join(pieces) + row.answer[done:]
    if chosen == row.answer or not chosen.strip():
        return None
    return PreferenceRow(
        id=row.id,
        images=row.images,
        prompt=row.prompt,
        chosen=[Message(role="assistant", content=chosen)],
        rejected=[Message(role="assistant", content=row.answer)],
        spans=spans,
        meta={**row.meta, "edits": len(row.edits)},
    )


def _read(recipe: Recipe, quarantine: Any) -> Iterator[PreferenceRow]:
    """Pairs with spans; a row that cannot be made into one is quarantined."""
    if recipe.pairs is not None:
        for row in read_rows(PreferenceRow, recipe.pairs, quarantine):
            spans = edit_spans(row.chosen[-1].text, row.rejected[-1].text, recipe.weight)
            yield row.model_copy(update={"spans": spans})
        return
    assert recipe.corrections is not None
    for row in read_rows(CorrectionRow, recipe.corrections, quarantine):
        pair = corrected(row, recipe.weight)
        if pair is None:
            quarantine(f"row {row.id}", "the edits leave the answer as it was, or empty", None)
        else:
            yield pair


def _refusal(recipe: Recipe, row: PreferenceRow) -> str:
    sides = (row.chosen[-1].text, row.spans.chosen), (row.rejected[-1].text, row.spans.rejected)
    if max(changed_share(text, spans) for text, spans in sides) > recipe.max_changed:
        return "another answer, not a correction (more than max_changed)"
    return ""


def _mean_changed(rows: list[PreferenceRow], side: str) -> float:
    shares = [
        changed_share(row.chosen[-1].text, row.spans.chosen)
        if side == "chosen"
        else changed_share(row.rejected[-1].text, row.spans.rejected)
        for row in rows
    ]
    return round(sum(shares) / len(shares), 4)
