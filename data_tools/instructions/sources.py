"""Every kind of instruction rows by its section of the recipe, with what was left out of each."""

from __future__ import annotations

import json

from align.objects.coco import load_captions, load_instances
from align.rows.schema import SFTRow
from align.rows.tally import Tally
from align.run.folder import RunFolder
from data_tools.instructions.conversations import Conversations, write_conversations
from data_tools.instructions.gqa import Gqa, GqaQuestion, capped, gqa_dialogues, load_gqa
from data_tools.instructions.recipe import Recipe
from data_tools.instructions.templates import Templates, template_dialogues
from data_tools.instructions.vqa import caption_rows, vqa_dialogues
from data_tools.material.pictures import Pictures
from data_tools.material.seeded_order import seeded_place

Pools = dict[str, list[SFTRow]]
"""Kind -> its rows."""


def collect(recipe: Recipe, train: Pictures, folder: RunFolder) -> tuple[Pools, list[Tally]]:
    """All rows by kind, and what was left out of each.

    Raises:
        AlignError: a malformed or empty input file.
    """
    pools: Pools = {}
    tallies = []
    for kind in recipe.kinds():
        tally = Tally(kind)
        if recipe.questions is not None and kind == "questions":
            pools[kind] = vqa_dialogues(recipe.questions, train, tally, recipe.seed)
        elif recipe.captions is not None and kind == "captions":
            pools[kind] = caption_rows(recipe.captions, train, tally, recipe.seed)
        elif recipe.gqa is not None and kind == "gqa":
            pools[kind] = _gqa_rows(recipe, recipe.gqa, tally)
        elif recipe.templates is not None and kind == "templates":
            pools[kind] = _template_rows(recipe, recipe.templates, train, tally)
        elif recipe.conversations is not None:
            pools[kind] = _conversation_rows(recipe, recipe.conversations, train, tally, folder)
        tallies.append(tally)
    return pools, tallies


def _gqa_rows(recipe: Recipe, section: Gqa, tally: Tally) -> list[SFTRow]:
    by_image: dict[str, list[GqaQuestion]] = {}
    for question in load_gqa(section.questions):
        by_image.setdefault(question.image_id, []).append(question)
    paths = {image_id: f"{section.prefix}{image_id}{section.suffix_of_files}" for image_id in by_image}
    pictures = Pictures(recipe.image_root, paths, Tally("gqa images"))
    usable: dict[str, list[GqaQuestion]] = {}
    for image_id, questions in by_image.items():
        if not pictures.sha256(image_id):
            tally.drop("image cannot be used", questions[0].id, len(questions))
            continue
        usable[image_id], reasons = capped(section, questions, recipe.seed)
        tally.keep(len(usable[image_id]))
        for reason in reasons:
            tally.drop(reason, image_id)
    return list(gqa_dialogues(section, usable, recipe.seed))


def _template_rows(recipe: Recipe, section: Templates, train: Pictures, tally: Tally) -> list[SFTRow]:
    present = load_instances(section.instances).objects
    paths = {image_id: path for image_id, path in train.paths.items() if train.sha256(image_id)}
    for image_id in sorted(set(present) - set(paths)):
        tally.drop("image is not a usable train image", str(image_id))
    rows = list(template_dialogues(section, paths, present, recipe.seed))
    tally.keep(len(rows))
    return rows


def _conversation_rows(
    recipe: Recipe, section: Conversations, train: Pictures, tally: Tally, folder: RunFolder
) -> list[SFTRow]:
    captions = load_captions(section.captions)
    for image_id in sorted(set(captions) - set(train.paths)):
        tally.drop("image is not a train image", str(image_id))
    wanted = sorted(
        set(captions) & set(train.paths), key=lambda image_id: seeded_place(recipe.seed, f"write {image_id}")
    )
    wanted = [image_id for image_id in wanted if train.sha256(image_id)][: section.num_images]
    rows, unread = write_conversations(
        section,
        {image_id: captions[image_id] for image_id in wanted},
        train.paths,
        recipe.image_root,
        folder.scratch / "conversations.jsonl",
        recipe.seed,
    )
    tally.keep(len(rows))
    for item in unread:
        tally.drop(str(item["reason"]), str(item["image_id"]))
    lines = "".join(json.dumps(item) + "\n" for item in unread)
    (folder.work / "quarantine.jsonl").write_text(lines, encoding="utf-8")
    return rows
