"""The rows of every source, by its name, with what was left out of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.objects.coco import load_captions, load_instances
from align.rows.quarantine import Quarantine
from align.rows.schema import SFTRow
from align.rows.tally import Tally
from align.run.folder import RunFolder
from align.run.stage import open_quarantine
from data_tools.instructions.conversations import Conversations, write_conversations
from data_tools.instructions.gqa import Gqa, GqaQuestion, capped, gqa_dialogues, load_gqa
from data_tools.instructions.recipe import Recipe
from data_tools.instructions.templates import Templates, template_dialogues
from data_tools.instructions.vqa import Captions, Questions, caption_rows, vqa_dialogues
from data_tools.material.pictures import Pictures
from data_tools.material.seeded_order import seeded_place

Pools = dict[str, list[SFTRow]]
"""Name of a source -> its rows."""


@dataclass(frozen=True)
class _Making:
    """What a source's rows are made with.

    Attributes:
        train: the pictures that may be used.
        unread: where a model's replies go that cannot be used.
        store: file of a model's replies, so that a stopped run asks nothing twice.
    """

    train: Pictures
    tally: Tally
    root: Path
    seed: int
    unread: Quarantine
    store: Path


def collect(recipe: Recipe, train: Pictures, folder: RunFolder) -> tuple[Pools, list[Tally]]:
    """All rows by source, and what was left out of each.

    Of several sources of one kind, the rows of the later ones have the source's name before their ids.

    Raises:
        AlignError: a malformed or empty input file.
    """
    pools: Pools = {}
    tallies, kinds = [], set()
    with open_quarantine(folder, "replies") as unread:
        for name, source in recipe.given().items():
            tallies.append(Tally(name))
            store = folder.scratch / f"{name}.jsonl"
            make = _Making(train, tallies[-1], recipe.image_root, recipe.seed, unread, store)
            rows = _ROWS[type(source)](source, make)
            if source.kind in kinds:
                rows = [row.model_copy(update={"id": f"{name}-{row.id}"}) for row in rows]
            kinds.add(source.kind)
            pools[name] = rows
    return pools, tallies


def _question_rows(section: Questions, make: _Making) -> list[SFTRow]:
    return vqa_dialogues(section, make.train, make.tally, make.seed)


def _caption_rows(section: Captions, make: _Making) -> list[SFTRow]:
    return caption_rows(section, make.train, make.tally, make.seed)


def _gqa_rows(section: Gqa, make: _Making) -> list[SFTRow]:
    by_image: dict[str, list[GqaQuestion]] = {}
    for question in load_gqa(section.questions):
        by_image.setdefault(question.image_id, []).append(question)
    paths = {image_id: f"{section.prefix}{image_id}{section.suffix_of_files}" for image_id in by_image}
    pictures = Pictures(make.root, paths, Tally("gqa images"))
    usable: dict[str, list[GqaQuestion]] = {}
    for image_id, questions in by_image.items():
        if not pictures.sha256(image_id):
            make.tally.drop("image cannot be used", questions[0].id, len(questions))
            continue
        usable[image_id], reasons = capped(section, questions, make.seed)
        make.tally.keep(len(usable[image_id]))
        for reason in reasons:
            make.tally.drop(reason, image_id)
    return list(gqa_dialogues(section, usable, make.seed))


def _template_rows(section: Templates, make: _Making) -> list[SFTRow]:
    train, present = make.train, load_instances(section.instances).objects
    paths = {image_id: path for image_id, path in train.paths.items() if train.sha256(image_id)}
    for image_id in sorted(set(present) - set(paths)):
        make.tally.drop("image is not a usable train image", str(image_id))
    rows = list(template_dialogues(section, paths, present, make.seed))
    make.tally.keep(len(rows))
    return rows


def _conversation_rows(section: Conversations, make: _Making) -> list[SFTRow]:
    train, captions = make.train, load_captions(section.captions)
    for image_id in sorted(set(captions) - set(train.paths)):
        make.tally.drop("image is not a train image", str(image_id))
    wanted = sorted(
        set(captions) & set(train.paths), key=lambda image_id: seeded_place(make.seed, f"write {image_id}")
    )
    wanted = [image_id for image_id in wanted if train.sha256(image_id)][: section.num_images]
    asked = {image_id: captions[image_id] for image_id in wanted}
    before = make.unread.tally.dropped.copy()
    rows = write_conversations(section, asked, train.paths, make.root, make.store, make.seed, make.unread)
    make.tally.keep(len(rows))
    for reason, count in (make.unread.tally.dropped - before).items():
        make.tally.drop(reason, make.unread.tally.examples[reason][-1], count)
    return rows


_ROWS: dict[type, Callable[[Any, _Making], list[SFTRow]]] = {
    Questions: _question_rows,
    Captions: _caption_rows,
    Gqa: _gqa_rows,
    Templates: _template_rows,
    Conversations: _conversation_rows,
}
