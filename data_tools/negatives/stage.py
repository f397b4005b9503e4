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

  align negatives run_dir=runs/my image_root=my/images negatives.kind=noisy negatives.pairs=my/pairs.parquet

`kind` and its keys stand in the section `negatives`. Writes `pairs.parquet` and `dropped.json`. Next: `align
dpo`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from align.errors import AlignError
from align.rows.schema import Message, PreferenceRow, SFTRow, Spans, read_rows, write_rows
from align.rows.tally import Tally
from align.run.folder import RunFolder
from align.run.stage import Done, run_stage, write_dropped
from data_tools.material.claims import split_objects
from data_tools.material.co_occurrence import CoOccurrence
from data_tools.material.pair_cap import PairCap
from data_tools.material.truth import load_truth
from data_tools.negatives.images import made_images, retrieved_images
from data_tools.negatives.recipe import Made, Recipe, Retrieved, Swap
from data_tools.negatives.swaps import swap_objects


def run(recipe: Recipe) -> RunFolder:
    """Write the pairs; byte-equal for the same recipe and inputs.

    Raises:
        AlignError: bad rows, a missing image, or no pair left.
    """
    return run_stage(recipe, recipe.negatives.inputs(), lambda folder: _work(recipe, folder))


def _work(recipe: Recipe, folder: RunFolder) -> Done:
    settings, tally = recipe.negatives, Tally("pairs")
    if isinstance(settings, Swap):
        rows = list(_swapped(settings, recipe.seed, tally))
    else:
        rows = _with_images(recipe, settings, folder.work / "images", tally)
        if isinstance(settings, Retrieved) and settings.rejected == "retrieved":
            rows = _rejecting_retrieved(rows, tally)
    tally.show()
    rows = [row for _, row in PairCap(recipe.max_pairs, recipe.seed).drawn((row.id, row) for row in rows)]
    write_dropped(folder.work, [tally])
    if not rows:
        raise AlignError("no pairs left", where=str(settings.source), fix="see the table above")
    write_rows(folder.work / "pairs.parquet", rows)
    words = f" data.image_root={folder.final / 'images'}" if isinstance(settings, Made) else ""
    return Done({"pairs": len(rows)}, f"align dpo RECIPE{words}")


def _swapped(settings: Swap, seed: int, tally: Tally) -> Iterator[PreferenceRow]:
    """Pairs of true answers and the same with swapped objects."""
    truth = load_truth(settings.truth, settings.objects_mode)
    table = CoOccurrence.of(truth)
    for row in read_rows(SFTRow, settings.rows, tally.quarantine):
        image_id, text = row.meta.get("image_id"), row.messages[-1].text
        if sum(message.role == "assistant" for message in row.messages) != 1:
            tally.drop("more than one answer", row.id)
        elif not isinstance(image_id, int) or image_id not in truth:
            tally.drop("no annotations of its image (meta.image_id)", row.id)
        elif set(split_objects(text, settings.objects_mode)) - truth[image_id]:
            tally.drop("names objects that are not there", row.id)
        else:
            pair = _swapped_pair(settings, seed, row, truth[image_id], table)
            if pair is None:
                tally.drop("nothing to swap", row.id)
                continue
            tally.keep()
            yield pair


def _swapped_pair(
    settings: Swap, seed: int, row: SFTRow, present: set[str], table: CoOccurrence
) -> PreferenceRow | None:
    found = swap_objects(
        row.messages[-1].text,
        present,
        table,
        settings.num_swaps,
        settings.among,
        settings.span_weight,
        Random(f"{seed} swap {row.id}"),
        settings.objects_mode,
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


def _with_images(
    recipe: Recipe, settings: Made | Retrieved, images: Path, tally: Tally
) -> list[PreferenceRow]:
    rows = []
    for row in read_rows(PreferenceRow, settings.pairs, tally.quarantine):
        if row.images:
            rows.append(row)
        else:
            tally.drop("no image", row.id)
    worse: Mapping[str, Sequence[str]]
    if isinstance(settings, Retrieved):
        worse = retrieved_images(rows, recipe.image_root, settings.model, settings.duplicate_bits)
    else:
        worse = made_images(rows, recipe.image_root, images, settings.conditional, recipe.seed)
    kept = []
    for row in rows:
        if row.id not in worse:
            tally.drop("no other picture that is not a near-duplicate", row.id)
            continue
        tally.keep()
        update = {"rejected_images": list(worse[row.id]), "meta": {**row.meta, "negative": settings.kind}}
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
