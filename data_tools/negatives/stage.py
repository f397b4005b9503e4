"""Add negatives to what is true: texts with swapped objects, or worse pictures for preference pairs.

  kind: swap        instruction rows (`rows`) whose answer is true become pairs; the rejected answer has
                    objects swapped for absent ones that usually come with the rest (POVID); needs `truth`
  kind: noisy       pairs get `rejected_images`: the picture after `step` steps of a diffusion (SeVa, POVID)
  kind: cropped     ... a small crop of it (mDPO)
  kind: masked      ... the picture with a share of its pixels lost (OPA-DPO)
  kind: retrieved   ... the most similar other picture of the pairs (Re-Align), never a near-duplicate;
                    `rejected: retrieved` rejects what was chosen for that picture

Noisy, cropped and masked pictures are the ones that `align dpo` makes by itself (objective.conditional):
write them out here to look at them, to sample rejected answers from them, or for another trainer. They are
put into `images/` with hard links to the originals: name that folder as data.image_root.

  align negatives run_dir=runs/my kind=retrieved pairs=my/pairs.parquet image_root=my/images

Writes `pairs.parquet` and `dropped.json`. Next: `align dpo`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Literal

from pydantic import Field, model_validator

from align.config.recipe import StageRecipe, Strict
from align.errors import AlignError
from align.models.loading import ModelSection
from align.objects.mentions import Mode
from align.rows.schema import Message, PreferenceRow, SFTRow, Spans, read_rows, write_rows
from align.rows.tally import Tally
from align.run.folder import RunFolder
from align.run.state import Input
from data_tools.material.claims import split_objects
from data_tools.material.co_occurrence import CoOccurrence
from data_tools.material.edit_spans import DEFAULT_WEIGHT
from data_tools.material.pair_cap import PairCap
from data_tools.material.truth import Annotations, load_truth, truth_inputs
from data_tools.negatives.images import MADE, ImageSettings, made_images, retrieved_images
from data_tools.negatives.swaps import swap_objects

Kind = Literal["swap", "noisy", "cropped", "masked", "retrieved"]


class Swap(Strict):
    """Kind swap."""

    num_swaps: int = Field(default=1, ge=1, description="objects swapped in one answer")
    among: int = Field(default=3, ge=1, description="drawn from so many of the likeliest absent objects")
    span_weight: float = Field(
        default=DEFAULT_WEIGHT, gt=0, description="weight of swapped words, for dense DPO"
    )


class Recipe(StageRecipe):
    """The recipe of `align negatives`."""

    name: str = "negatives"
    kind: Kind = Field(description="which negatives, see above")
    rows: Path | None = Field(default=None, description="instruction rows (kind swap)")
    pairs: Path | None = Field(default=None, description="preference rows (the image kinds)")
    image_root: Path = Field(description="folder that image paths are relative to")
    truth: list[Annotations] = Field(default=[], description="annotations of the pictures (kind swap)")
    objects_mode: Mode = Field(default="strict", description="how objects are found in texts (kind swap)")
    swap: Swap = Swap()
    image: ImageSettings = ImageSettings()
    rejected: Literal["own", "retrieved"] = Field(
        default="own",
        description="kind retrieved: own: the pair's rejected answer; retrieved: the answer that was chosen "
        "for the retrieved picture, to the same prompt",
    )
    max_pairs: int | None = Field(
        default=None, ge=1, description="most pairs in all, drawn by the seed; null: any number"
    )
    model: ModelSection | None = Field(
        default=None, description="kind retrieved: compare pictures by this checkpoint's image features"
    )

    @model_validator(mode="after")
    def _complete(self) -> Recipe:
        if self.kind == "swap" and (self.rows is None or not self.truth):
            raise ValueError("kind swap needs `rows` and `truth`")
        if self.rejected == "retrieved" and self.kind != "retrieved":
            raise ValueError("rejected: retrieved goes with kind retrieved")
        if self.kind != "swap" and self.pairs is None:
            raise ValueError(f"kind {self.kind} needs `pairs`")
        return self


def run(recipe: Recipe) -> RunFolder:
    """Write the pairs; byte-equal for the same recipe and inputs.

    Raises:
        AlignError: bad rows, a missing image, or no pair left.
    """
    source = recipe.rows if recipe.kind == "swap" else recipe.pairs
    assert source is not None
    inputs: dict[str, Input] = {"rows": source, **truth_inputs(recipe.truth)}
    if recipe.model is not None:
        inputs["model"] = recipe.model
    folder = RunFolder.open(recipe, inputs)
    if folder.is_complete:
        return folder
    with folder:
        tally = Tally("pairs")
        if recipe.kind == "swap":
            rows = list(_swapped(recipe, source, tally))
        else:
            rows = _with_images(recipe, folder, source, tally)
            rows = _rejecting_retrieved(rows, tally) if recipe.rejected == "retrieved" else rows
        tally.show()
        rows = [row for _, row in PairCap(recipe.max_pairs, recipe.seed).drawn((row.id, row) for row in rows)]
        (folder.work / "dropped.json").write_text(json.dumps({tally.what: tally.to_json()}, indent=1) + "\n")
        if not rows:
            raise AlignError("no pairs left", where=str(source), fix="see the table above")
        write_rows(folder.work / "pairs.parquet", rows)
        words = f" data.image_root={folder.final / 'images'}" if recipe.kind in MADE else ""
        folder.complete(metrics={"pairs": len(rows)}, next_step=f"align dpo RECIPE{words}")
    return folder


def _swapped(recipe: Recipe, source: Path, tally: Tally) -> Iterator[PreferenceRow]:
    """Pairs of true answers and the same with swapped objects."""
    truth = load_truth(recipe.truth, recipe.objects_mode)
    table = CoOccurrence.of(truth)
    for row in read_rows(SFTRow, source):
        image_id, text = row.meta.get("image_id"), row.messages[-1].text
        if sum(message.role == "assistant" for message in row.messages) != 1:
            tally.drop("more than one answer", row.id)
        elif not isinstance(image_id, int) or image_id not in truth:
            tally.drop("no annotations of its image (meta.image_id)", row.id)
        elif set(split_objects(text, recipe.objects_mode)) - truth[image_id]:
            tally.drop("names objects that are not there", row.id)
        else:
            pair = _swapped_pair(recipe, row, truth[image_id], table)
            if pair is None:
                tally.drop("nothing to swap", row.id)
                continue
            tally.keep()
            yield pair


def _swapped_pair(
    recipe: Recipe, row: SFTRow, present: set[str], table: CoOccurrence
) -> PreferenceRow | None:
    settings, text = recipe.swap, row.messages[-1].text
    found = swap_objects(
        text,
        present,
        table,
        settings.num_swaps,
        settings.among,
        settings.span_weight,
        Random(f"{recipe.seed} swap {row.id}"),
        recipe.objects_mode,
    )
    if found is None:
        return None
    return PreferenceRow(
        id=f"swap>{row.id}",
        images=row.images,
        prompt=row.messages[:-1],
        chosen=[row.messages[-1]],
        rejected=[Message(role="assistant", content=found.text)],
        spans=Spans(chosen=found.old, rejected=found.new),
        meta={**row.meta, "margin": float(len(found.swaps)), "swaps": found.swaps},
    )


def _with_images(recipe: Recipe, folder: RunFolder, source: Path, tally: Tally) -> list[PreferenceRow]:
    rows = []
    for row in read_rows(PreferenceRow, source):
        if row.images:
            rows.append(row)
        else:
            tally.drop("no image", row.id)
    worse: Mapping[str, Sequence[str]]
    if recipe.kind == "retrieved":
        worse = retrieved_images(rows, recipe.image_root, recipe.model, recipe.image.duplicate_bits)
    else:
        worse = made_images(
            rows, recipe.image_root, folder.work / "images", recipe.kind, recipe.image, recipe.seed
        )
    kept = []
    for row in rows:
        if row.id not in worse:
            tally.drop("no other picture that is not a near-duplicate", row.id)
            continue
        tally.keep()
        update = {"rejected_images": list(worse[row.id]), "meta": {**row.meta, "negative": recipe.kind}}
        kept.append(row.model_copy(update=update))
    return kept


def _rejecting_retrieved(rows: list[PreferenceRow], tally: Tally) -> list[PreferenceRow]:
    """Each row against what was chosen for its retrieved pictures, so that both preferences go one way.

    Re-Align (Xing et al. 2025, arXiv 2502.13146) masks objects of the chosen answer and has the model fill
    them in while it looks at the retrieved picture; here the whole answer to that picture is taken.
    """
    said: dict[tuple[Any, ...], list[Message]] = {}
    for row in rows:
        said.setdefault((*row.images, *_words(row.prompt)), row.chosen)
    kept = []
    for row in rows:
        other = said.get((*row.rejected_images, *_words(row.prompt)))
        if other is None:
            tally.move("no answer to this prompt for the retrieved picture", row.id)
        elif other[-1].text.split() == row.chosen[-1].text.split():
            tally.move("the retrieved picture has the same answer", row.id)
        else:
            meta = {key: value for key, value in row.meta.items() if not key.startswith("rejected_")}
            update = {"rejected": other, "spans": Spans(), "meta": meta}
            kept.append(row.model_copy(update=update))
    return kept


def _words(prompt: list[Message]) -> list[str]:
    return [message.text for message in prompt]
