"""Build instruction rows and description prompts from annotations, and from captions through a model.

  kind: questions      dialogues of short answers, VQAv2 format
  kind: captions       a description a row, COCO format
  kind: gqa            dialogues from GQA, short answers and full sentences
  kind: templates      dialogues made of COCO instances: is it there, how many, what is there
  kind: conversations  dialogues that a model behind an OpenAI-compatible server writes from captions

Each of the recipe's `sources` has a kind and a share of the rows; `caps` limit how often one image or one
task occurs, `holdout` keeps images out with all their rows. Images that occur in the `exclude` files
(evaluation data) never enter.

Writes `instructions.parquet`, `prompts.parquet` (description prompts for train and dev images, to sample
answers to), `holdout.parquet`, and `dropped.json` (what was left out, by reason).

  align instructions recipes/data/instructions.yaml sources.captions.share=0.5

Next: `align sft`.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from align.errors import AlignError
from align.inputs.images import image_sha256, resolve_image
from align.objects.coco import load_images
from align.progress import say
from align.rows.schema import Message, PromptRow, SFTRow, write_rows
from align.rows.tally import Tally
from align.run.folder import RunFolder
from align.run.stage import Done, run_stage, write_dropped
from data_tools.instructions.caps import Caps, within_caps
from data_tools.instructions.recipe import Images, Recipe
from data_tools.instructions.sources import Pools, collect
from data_tools.material.pictures import Pictures
from data_tools.material.seeded_order import seeded_place


def run(recipe: Recipe) -> RunFolder:
    """Write the rows; byte-equal for the same recipe and inputs.

    Raises:
        AlignError: a malformed or empty input file, or nothing left to write.
    """
    return run_stage(recipe, _inputs(recipe), lambda folder: _work(recipe, folder))


def _work(recipe: Recipe, folder: RunFolder) -> Done:
    excluded = {image_id for path in recipe.exclude for image_id in load_images(path)}
    train = _pictures(recipe, recipe.images, excluded, "train images")
    dev = None
    if recipe.prompts is not None:
        dev = _pictures(recipe, recipe.prompts.dev_images, excluded, "dev images")
        _check_disjoint(train, dev)
    pools, tallies = collect(recipe, train, folder)
    held = _held_out(recipe, pools, folder)
    if recipe.caps != Caps():
        tallies.append(Tally("capped rows"))
        _cap(recipe, pools, tallies[-1])
    rows = _mix(recipe, pools)
    prompts = [] if dev is None else _prompt_rows(recipe, train, dev, held)
    tallies = [train.tally, *([dev.tally] if dev else []), *tallies]
    for tally in tallies:
        tally.show()
    write_rows(folder.work / "instructions.parquet", rows)
    if recipe.prompts is not None:
        write_rows(folder.work / "prompts.parquet", prompts)
    write_dropped(folder.work, tallies)
    metrics = _metrics(pools, rows, prompts)
    kinds = ", ".join(f"{metrics[name]} {name}" for name in pools)
    say(f"  {len(rows)} rows ({kinds})")
    if recipe.prompts is not None:
        say(f"  {metrics['prompts_train']} train and {metrics['prompts_dev']} dev prompts")
    return Done(metrics, "align sft RECIPE")


def _inputs(recipe: Recipe) -> dict[str, str | Path]:
    inputs: dict[str, str | Path] = {"images": recipe.images.annotations}
    for name, source in recipe.given().items():
        inputs |= {f"sources.{name}.{key}": path for key, path in source.inputs().items()}
    if recipe.prompts is not None:
        inputs["dev_images"] = recipe.prompts.dev_images.annotations
    return inputs | {f"exclude_{number}": path for number, path in enumerate(recipe.exclude)}


def _held_out(recipe: Recipe, pools: Pools, folder: RunFolder) -> set[str]:
    """Take the rows of held-out images out of the pools into `holdout.parquet`; the images' paths."""
    if recipe.holdout is None:
        return set()
    names = {image for rows in pools.values() for row in rows for image in row.images}
    share = int(recipe.holdout.share * 16**12)
    paths = {name: resolve_image(recipe.image_root, name) for name in names}
    held = {
        name
        for name, path in paths.items()
        if int(seeded_place(recipe.seed, image_sha256(path))[:12], 16) < share
    }
    kept_out = [row for rows in pools.values() for row in rows if held & set(row.images)]
    for kind, rows in pools.items():
        pools[kind] = [row for row in rows if not held & set(row.images)]
    if not kept_out:
        raise AlignError("no image was held out", where="holdout.share", fix="raise it, or leave it out")
    kept_out.sort(key=lambda row: row.id)
    write_rows(folder.work / "holdout.parquet", kept_out)
    say(f"  {len(kept_out)} rows of {len(held)} images held out")
    return held


def _cap(recipe: Recipe, pools: Pools, tally: Tally) -> None:
    everything = [row for rows in pools.values() for row in rows]
    kept = within_caps(recipe.caps, everything, lambda row: seeded_place(recipe.seed + 2, row.id), tally)
    named = {row.id: name for name, rows in pools.items() for row in rows}
    for name in pools:
        pools[name] = [row for row in kept if named[row.id] == name]


def _pictures(recipe: Recipe, images: Images, excluded: set[int], what: str) -> Pictures:
    """The pictures of a file, without the evaluation images."""
    tally, paths = Tally(what), {}
    for image_id, name in sorted(load_images(images.annotations).items()):
        if image_id in excluded:
            tally.drop("is an evaluation image", name)
        else:
            paths[image_id] = images.prefix + name
    if not paths:
        raise AlignError(f"no {what} left", where=str(images.annotations), fix="look at `exclude`")
    return Pictures(recipe.image_root, paths, tally)


def _check_disjoint(train: Pictures, dev: Pictures) -> None:
    shared = set(train.paths) & set(dev.paths)
    if shared:
        raise AlignError(
            f"{len(shared)} image ids are both train and dev, such as {min(shared)}",
            fix="the judge must be measured on images that no training uses",
        )


def _mix(recipe: Recipe, pools: Pools) -> list[SFTRow]:
    """Rows in the sources' shares, as many as `num_rows` and the scarcest source allow, shuffled.

    Raises:
        AlignError: a source with a share above zero has no rows.
    """
    shares = {name: source.share for name, source in recipe.given().items()}
    total = sum(shares.values())
    if total == 0:
        raise AlignError("the shares of all sources are 0", where="sources", fix="raise one of them")
    limits = [float(recipe.num_rows or "inf")]
    for name, share in shares.items():
        if share and not pools[name]:
            what, fix = f"no rows of the source {name!r}", "see the dropped table"
            raise AlignError(what, where=f"sources.{name}", fix=fix)
        limits += [len(pools[name]) * total / share] if share else []
    rows = []
    for name, share in shares.items():
        pool = sorted(pools[name], key=lambda row: seeded_place(recipe.seed, row.id))
        rows += pool[: round(min(limits) * share / total)]
    return sorted(rows, key=lambda row: seeded_place(recipe.seed + 1, row.id))


def _prompt_rows(recipe: Recipe, train: Pictures, dev: Pictures, held: set[str]) -> list[PromptRow]:
    section, rows = recipe.prompts, []
    assert section is not None
    for split, pictures, wanted in (("train", train, section.train), ("dev", dev, section.dev)):
        order = sorted(pictures.paths, key=lambda image_id: seeded_place(recipe.seed, f"{split} {image_id}"))
        found = 0
        for image_id in order:
            sha256 = pictures.sha256(image_id) if found < wanted else None
            if sha256 is None or pictures.paths[image_id] in held:
                continue
            found += 1
            text = random.Random(f"{recipe.seed} prompt {image_id}").choice(section.prompts)
            meta = {"split": split, "image_id": image_id, "image_sha256": sha256}
            prompt = [Message(role="user", content=text)]
            row_id = f"{split}-{image_id}"
            rows.append(PromptRow(id=row_id, images=[pictures.paths[image_id]], prompt=prompt, meta=meta))
        if found < wanted:
            say(f"  only {found} of {wanted} {split} prompts: no more images")
    return sorted(rows, key=lambda row: row.id)


def _metrics(pools: Pools, rows: list[SFTRow], prompts: list[PromptRow]) -> dict[str, int]:
    named = {row.id: name for name, pool in pools.items() for row in pool}
    counts = Counter(named[row.id] for row in rows)
    return {
        "rows": len(rows),
        **{name: counts[name] for name in pools},
        "images": len({image for row in rows for image in row.images}),
        "prompts_train": sum(row.meta["split"] == "train" for row in prompts),
        "prompts_dev": sum(row.meta["split"] == "dev" for row in prompts),
    }
