"""Make preference pairs of corrected answers: what was written is rejected, the correction is chosen.

As in RLHF-V (Yu et al. 2023, arXiv 2312.00849): people mend the wrong parts of an answer and leave the rest,
and `spans` mark what they mended in both, with a weight that dense DPO reads (objective.token_weights).
Either of two sources:

  kind: edits   JSONL rows {id, images, prompt, answer, edits: [{start, end, text}]}: characters `start` to
                `end` (exclusive) of the answer become `text`
  kind: pairs   preference rows without spans, such as an imported RLHF-V: the words that differ are marked

  align corrections run_dir=runs/my source.kind=edits source.path=my/corrections.jsonl

Writes `pairs.parquet`, `dropped.json`, and `quarantine.jsonl` for rows that could not be used. Next: `align
dpo` with objective.token_weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from align.config.recipe import StageRecipe, Strict
from align.errors import AlignError
from align.progress import say
from align.rows.quarantine import Quarantine
from align.rows.schema import BaseRow, Message, PreferenceRow, Span, Spans, read_rows, write_rows
from align.rows.tally import Tally
from align.run.folder import RunFolder
from align.run.stage import Done, open_quarantine, run_stage, write_dropped
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


class Edits(Strict):
    """Answers with their edits."""

    kind: Literal["edits"]
    path: Path = Field(description="answers with their edits, JSONL")

    def rows(self, weight: float, bad: Quarantine) -> Iterator[PreferenceRow]:
        """Pairs with spans, which weigh `weight`; a row that cannot be made into one goes to `bad`."""
        for row in read_rows(CorrectionRow, self.path, bad.refuse):
            pair = corrected(row, weight)
            if pair is None:
                why = "the edits leave the answer as it was, or empty"
                bad.add(self.path.name, "no correction", why, row_id=row.id)
            else:
                yield pair


class Pairs(Strict):
    """Preference rows without spans."""

    kind: Literal["pairs"]
    path: Path = Field(description="preference rows to mark, .parquet or .jsonl")

    def rows(self, weight: float, bad: Quarantine) -> Iterator[PreferenceRow]:
        """The rows with spans, which weigh `weight`; what is no such row goes to `bad`."""
        for row in read_rows(PreferenceRow, self.path, bad.refuse):
            spans = edit_spans(row.chosen[-1].text, row.rejected[-1].text, weight)
            yield row.model_copy(update={"spans": spans})


class Recipe(StageRecipe):
    """The recipe of `align corrections`."""

    moved_keys: ClassVar[Mapping[str, str]] = {
        "corrections": "source: {kind: edits, path: ...}",
        "pairs": "source: {kind: pairs, path: ...}",
    }

    name: str = "corrections"
    source: Annotated[Edits | Pairs, Field(discriminator="kind")] = Field(description="what was mended")
    weight: float = Field(default=DEFAULT_WEIGHT, gt=0, description="of what was edited; the rest weighs 1")
    max_changed: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="with a larger share of edited characters it is no correction but another answer",
    )


def run(recipe: Recipe) -> RunFolder:
    """Write the pairs; byte-equal for the same recipe and inputs.

    Raises:
        AlignError: no input, or no pair left.
    """
    return run_stage(recipe, {recipe.source.kind: recipe.source.path}, lambda folder: _work(recipe, folder))


def _work(recipe: Recipe, folder: RunFolder) -> Done:
    tally, rows = Tally("corrections"), []
    with open_quarantine(folder, "bad rows") as bad:
        for row in recipe.source.rows(recipe.weight, bad):
            reason = _refusal(recipe, row)
            if reason:
                tally.drop(reason, row.id)
            else:
                tally.keep()
                rows.append(row)
    for reason, count in bad.tally.dropped.items():
        tally.drop(reason, bad.tally.examples[reason][0], count)
    tally.show()
    write_dropped(folder.work, [tally])
    if not rows:
        raise AlignError("no pairs left", where=str(recipe.source.path), fix="see the table above")
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
    return Done(metrics, "align dpo RECIPE objective.token_weights.gamma=5")


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
